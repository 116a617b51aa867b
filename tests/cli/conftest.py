"""Commands as they are typed: asked of a server over HTTP, or of the database."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from sqlalchemy.orm import Session
from werkzeug.serving import WSGIRequestHandler, make_server

from app.api.application import assemble
from app.cli import main
from app.cli.client import database
from app.context import Context
from app.models import Deletion
from tests import factories
from tests.support.serving import serving

Run = Callable[..., Result]
MakeFailed = Callable[..., Deletion]


class _Silent(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(app: Flask) -> Iterator[str]:
    """The address of a server of the application."""
    served = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Silent)
    with serving(served):
        yield f"http://127.0.0.1:{served.port}"


@pytest.fixture(scope="session", autouse=True)
def _application() -> Iterator[None]:
    """One for all commands of the process: to put it together takes longer than what most do with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "assemble", cache(assemble))
        yield


@pytest.fixture
def run(context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Run:
    """Run a command with `--direct`, unless it names a server."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # nobody's token

    def do(*arguments: str, server: str = "", **options: Any) -> Result:
        where = ["--server", server] if server else ["--direct"]
        result = CliRunner().invoke(main, [*arguments, *where], obj=context, **options)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return do


@pytest.fixture
def make_failed(session: Session) -> MakeFailed:
    """Makes a deletion that is FAILED since now over one fileset, by the name of its workspace. Commits."""

    def make(name: str, **values: Any) -> Deletion:
        deletion = factories.make_failed_deletion(session, name, **values)
        session.commit()
        return deletion

    return make
