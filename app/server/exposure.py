"""Where a server may listen: without authentication, only on addresses that this machine alone can reach."""

from collections.abc import Iterable
from typing import Any

from app.config import Settings, is_loopback

Address = tuple[Any, ...] | str | bytes
"""The address of a socket: host and port, or the path of a Unix socket."""


def exposure_error(settings: Settings, addresses: Iterable[Address]) -> str | None:
    """The reason why a server must not listen on `addresses`: one line with variable and remedy. None if it may."""
    exposed = [one for one in addresses if isinstance(one, tuple) and not is_loopback(str(one[0]))]
    if not exposed:
        return None
    where = ", ".join(f"{host or '0.0.0.0'}:{port}" for host, port, *_ in exposed)  # noqa: S104 -- only a text
    if settings.allow_unsigned_jwt:
        return (
            f"WORKSPACES_ALLOW_UNSIGNED_JWT lets any caller claim any identity, so {where} is refused: "
            "set it to false, or listen on 127.0.0.1."
        )
    if not settings.auth_enabled and not settings.allow_open_access:
        return (
            f"WORKSPACES_AUTH_ENABLED is false, so any client of {where} would be an administrator: "
            "set it to true, listen on 127.0.0.1, or set WORKSPACES_ALLOW_OPEN_ACCESS=true if that is intended."
        )
    return None
