"""What a browser can be made to send by the pages of others: a foreign Host, and writes from another site.

A page whose name is made to lead here (DNS rebinding) is of our origin for the browser, and only the Host tells. A page
of another site needs no name: the browser sends its forms, with whatever proves its user to a gateway.
"""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Flask, current_app, request

from app.config import Settings
from app.errors import BadRequest, Forbidden, Misdirected

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/?#@,\s]+)(?::[0-9]{0,5})?")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})
_USUAL_PORTS = {"http": "80", "https": "443"}


def refuse_foreign_requests(app: Flask) -> None:
    """Refuse, before anything else of `app` sees it, a request that a page of others has made a browser send."""

    @app.before_request
    def check() -> None:
        settings: Settings = current_app.extensions["service"].context.settings
        host = request.headers.get("Host")
        if host is None and request.environ.get("SERVER_PROTOCOL") != "HTTP/1.0":
            raise BadRequest("The header Host is missing; HTTP/1.1 requires it.")
        # Orchestrators ask by whatever name they know.
        if not request.path.startswith("/health/"):
            _require_own_host(settings, "localhost" if host is None else host)
        if request.method not in _READS:
            _require_own_site(settings, host or "")


def _require_own_host(settings: Settings, host: str) -> None:
    """Raise Misdirected if `host`, a header's value, is a name that is not ours, where that is all that tells.

    An address is never refused: a page that is made to lead here has a name.
    """
    if settings.has_login and not settings.trusted_hosts:
        return
    parts = _HOST.fullmatch(host.lower())
    name = parts[1] if parts else ""
    if name not in {"localhost", *settings.trusted_hosts} and not _is_address(name):
        raise Misdirected(
            f"'{host[:100]}' is not a name of this server: use its address, or add the name to "
            "WORKSPACES_TRUSTED_HOSTS."
        )


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _require_own_site(settings: Settings, host: str) -> None:
    """Raise Forbidden for a write that a page of another site has caused. Programs send neither header."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site in _OWN_SITES or (site is None and origin is None):
        return
    if origin and (_is_of_host(origin, host) or origin.lower() in settings.trusted_origins):
        return
    raise Forbidden(
        f"Forbidden: a page of another site ({(origin or 'no origin')[:100]}) may not write here; add its origin to "
        "WORKSPACES_TRUSTED_ORIGINS if it is yours."
    )


def _is_of_host(origin: str, host: str) -> bool:
    """Whether a page of that origin is one of `host`; the scheme may differ, because TLS may end at a proxy."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    usual = f":{_USUAL_PORTS.get(parts.scheme, '')}"
    return bool(parts.netloc) and parts.netloc.removesuffix(usual) == host.lower().removesuffix(usual)
