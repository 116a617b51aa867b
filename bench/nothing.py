"""Programs that do nothing, for the start of which the product's is compared with."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from celery import Celery

celery = Celery("nothing", broker=os.environ.get("WORKSPACES_BROKER_URL"))


def application(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application that answers everything with 200."""
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
