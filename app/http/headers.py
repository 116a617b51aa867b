"""Headers of every response: security headers for browsers, and the id of the request in the log."""

import re

from flask import Flask, Response, g, request
from structlog.contextvars import bind_contextvars, unbind_contextvars
from uuid_utils import uuid7

_VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

STRICT_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of every response that is not a page."""

ALWAYS = {
    "Content-Security-Policy": STRICT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Access may be revoked, and resources deleted, at any moment, so no cache may answer for us.
    "Cache-Control": "no-store",
}
"""The headers of every response; a route may set its own in their place."""


def add_headers(app: Flask) -> None:
    """Add security headers and an `X-Request-Id` to every response of `app`, errors included.

    The id is the client's if that is well-formed. During the request it is `g.request_id` and a field of every
    log line. Headers set by a route stay.
    """

    @app.before_request
    def identify() -> None:
        sent = request.headers.get("X-Request-Id", "")
        g.request_id = sent if _VALID_ID.fullmatch(sent) else uuid7().hex
        bind_contextvars(request_id=g.request_id)

    @app.after_request
    def complete(response: Response) -> Response:
        for name, value in ALWAYS.items():
            response.headers.setdefault(name, value)
        response.headers["X-Request-Id"] = g.request_id
        return response

    @app.teardown_request
    def forget(_: BaseException | None) -> None:
        unbind_contextvars("request_id")
