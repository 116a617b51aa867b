"""What every answer carries: how browsers are to treat it, and the id under which the log knows the request."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from flask import Flask, Response, g, request
from structlog.contextvars import bind_contextvars, unbind_contextvars
from uuid_utils import uuid7

_DOCS = "/docs"
_DOCS_PAGE = Path(__file__).parent / "templates" / "docs.html"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_API_POLICY = "default-src 'none'; frame-ancestors 'none'"
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Whatever was readable may be revoked or gone the next moment, so no cache may answer for us.
    "Cache-Control": "no-store",
}


def add_headers(app: Flask) -> None:
    """Give every answer of `app`, errors included, its security headers and an `X-Request-Id`.

    The id is the client's if it sent a sane one. During the request it is `g.request_id`, and a field of
    every log line. A header that a route has set itself stays.
    """
    docs_policy = _docs_policy()

    @app.before_request
    def identify() -> None:
        sent = request.headers.get("X-Request-Id", "")
        g.request_id = sent if _SANE_ID.fullmatch(sent) else uuid7().hex
        bind_contextvars(request_id=g.request_id)

    @app.after_request
    def complete(response: Response) -> Response:
        policy = docs_policy if request.path == _DOCS else _API_POLICY
        for name, value in {**_ALWAYS, "Content-Security-Policy": policy}.items():
            response.headers.setdefault(name, value)
        response.headers["X-Request-Id"] = g.request_id
        return response

    @app.teardown_request
    def forget(_: BaseException | None) -> None:
        unbind_contextvars("request_id")


def _docs_policy() -> str:
    """Nothing but the page's own style sheet, known by its hash."""
    styles = re.findall(r"<style>(.*?)</style>", _DOCS_PAGE.read_text(), re.DOTALL)
    hashes = " ".join(f"'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in styles)
    return f"{_API_POLICY}; style-src {hashes}; base-uri 'none'; form-action 'none'"
