"""What gunicorn checks before it serves, and what it takes of a request before the application sees it."""

import sys
from collections.abc import Iterable

from gunicorn.arbiter import Arbiter
from gunicorn.http.message import Request
from gunicorn.workers.base import Worker

from app.config import load_settings
from app.server.exposure import Address, refusal

# A header as large as any token that somebody might send: the application itself then answers 401. The product
# of the two is what one connection can make a process hold.
limit_request_field_size = 104 * 1024
limit_request_fields = 40
# The longest that gunicorn allows: filters are part of the address.
limit_request_line = 8190

_DRAINED_BYTES = 64 * 1024
"""Of a body that the application did not read gunicorn reads so much away; if there is more, it hangs up."""


def on_starting(server: Arbiter) -> None:
    """Refuse to start, before any socket is open, where the settings forbid to listen."""
    _stop_if_exposed(address for address in server.cfg.address if not isinstance(address, int))


def when_ready(server: Arbiter) -> None:
    """The same for sockets that were inherited, whose addresses only they know; nothing is accepted yet."""
    _stop_if_exposed(listener.getsockname() for listener in server.LISTENERS)


def pre_request(worker: Worker, request: Request) -> None:
    """Say `Connection: close` wherever a refusal may leave too much of the body unread.

    Otherwise the client would believe in `keep-alive`, and lose its next request.
    """
    del worker
    headers = dict(request.headers)
    if "TRANSFER-ENCODING" in headers or int(headers.get("CONTENT-LENGTH", 0)) >= _DRAINED_BYTES:
        request.force_close()


def _stop_if_exposed(addresses: Iterable[Address]) -> None:
    if reason := refusal(load_settings(), addresses):
        print(reason, file=sys.stderr)  # noqa: T201 -- as every refusal of a setting: one line, status 2
        raise SystemExit(2)
