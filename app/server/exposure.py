"""Where a server may listen: without authentication, only where nobody but this machine can reach it."""

from collections.abc import Iterable
from typing import Any

from app.config import Settings, is_loopback

Address = tuple[Any, ...] | str | bytes
"""As sockets name it: host and port, or the path of a Unix socket."""


def refusal(settings: Settings, addresses: Iterable[Address]) -> str | None:
    """Why a server must not listen on `addresses`: one line with variable and remedy. None if it may."""
    exposed = [one for one in addresses if isinstance(one, tuple) and not is_loopback(str(one[0]))]
    if not exposed:
        return None
    where = ", ".join(f"{host or '0.0.0.0'}:{port}" for host, port, *_ in exposed)  # noqa: S104 -- the words for it
    if settings.allow_unsigned_jwt:
        return (
            f"WORKSPACES_ALLOW_UNSIGNED_JWT lets everybody be anybody, so {where} is refused: "
            "set it to false, or listen on 127.0.0.1."
        )
    if not settings.auth_enabled and not settings.allow_open_access:
        return (
            f"WORKSPACES_AUTH_ENABLED is false, so everybody who reaches {where} could do everything: "
            "set it to true, listen on 127.0.0.1, or set WORKSPACES_ALLOW_OPEN_ACCESS=true if that is meant."
        )
    return None
