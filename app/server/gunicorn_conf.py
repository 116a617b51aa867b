"""gunicorn's checks at start, and its limits of a request before the application sees it."""

import sys
from collections.abc import Iterable
from http import HTTPStatus

from gunicorn.arbiter import Arbiter
from gunicorn.http.message import Request
from gunicorn.workers.base import Worker

from app.access.keys.signing import signing_file_error
from app.config import load_settings
from app.db import unfitness
from app.server import shared_metrics
from app.server.exposure import Address, exposure_error
from app.server.rejected import Refused

# A header may hold the largest token that clients send, so that the application itself answers 401. The product
# of the two limits is the memory that one connection can take.
limit_request_field_size = 104 * 1024
limit_request_fields = 40
# The maximum of gunicorn, because filters are part of the URL.
limit_request_line = 8190
# By default gunicorn takes SCRIPT_NAME and PATH_INFO from headers of clients on loopback, as behind a proxy all are:
# the path that the proxy has judged would not be the one that is served.
forwarder_headers = ""

_DRAINED_BYTES = 64 * 1024
"""gunicorn discards this much of a body that the application did not read; if there is more, it closes."""


def on_starting(server: Arbiter) -> None:
    """Refuse to start, before any socket is open, what the settings forbid, or an unfit database server."""
    _stop_if_exposed(address for address in server.cfg.address if not isinstance(address, int))
    _stop_if(signing_file_error(load_settings()))
    _stop_if(unfitness(load_settings()))
    shared_metrics.open_directory()


def on_exit(server: Arbiter) -> None:
    """Leave no files of metrics behind."""
    del server
    shared_metrics.remove_directory()


def pre_fork(server: Arbiter, worker: Worker) -> None:
    """Say where the process that is about to begin counts its requests."""
    shared_metrics.assign_place(server, worker)


def post_fork(server: Arbiter, worker: Worker) -> None:
    """The same, in that process."""
    del server
    shared_metrics.take_place(worker)


def child_exit(server: Arbiter, worker: Worker) -> None:
    """Forget the requests that were in progress in a process that has ended."""
    del server
    shared_metrics.leave_place(worker)


def when_ready(server: Arbiter) -> None:
    """The same check for inherited sockets, whose addresses are known only now; nothing is accepted yet."""
    _stop_if_exposed(listener.getsockname() for listener in server.LISTENERS)


def pre_request(worker: Worker, request: Request) -> None:
    """Refuse what gunicorn lets pass, and send `Connection: close` if much of the body may be left unread.

    Otherwise the client would rely on `keep-alive` and lose its next request. Raises Refused.
    """
    del worker
    headers = dict(request.headers)
    if request.version >= (1, 1) and "HOST" not in headers:
        raise Refused(HTTPStatus.BAD_REQUEST, "The header Host is missing; HTTP/1.1 needs it.")
    codings = [value.strip().lower() for name, value in request.headers if name == "TRANSFER-ENCODING"]
    if codings not in ([], ["chunked"]):
        # gunicorn takes the chunks apart and hands on what is in them as if nothing else had been done to it.
        raise Refused(
            HTTPStatus.NOT_IMPLEMENTED,
            "Only the transfer coding 'chunked' is supported; send the body as it is.",
        )
    if "TRANSFER-ENCODING" in headers or int(headers.get("CONTENT-LENGTH", 0)) >= _DRAINED_BYTES:
        request.force_close()


def _stop_if_exposed(addresses: Iterable[Address]) -> None:
    _stop_if(exposure_error(load_settings(), addresses))


def _stop_if(reason: str | None) -> None:
    if reason:
        print(reason, file=sys.stderr)  # noqa: T201 -- as for every wrong setting: one line, status 2
        raise SystemExit(2)
