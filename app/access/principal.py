"""Who is calling, as far as the request can tell; what they may do is decided beside the data."""

from dataclasses import dataclass

EVERYBODY = "*"
"""The identity that every authenticated caller shares; a role bound to it is everybody's."""

SERVICE_PREFIX = "service:"
"""How the ids of the platform's own services begin. Only the gateway can vouch for one, never a token."""

MAX_EMAIL_CHARS = 320
"""Of the longest identity that somebody can have; ids and groups are shorter."""


def is_name(text: str, longest: int) -> bool:
    """Whether somebody can have such an id, email or group: printable, and not a look-alike by white space."""
    return 0 < len(text) <= longest and text.isprintable() and text == text.strip()


@dataclass(frozen=True)
class Principal:
    """An authenticated caller; `id` is empty for nobody in particular, when authentication is off.

    Roles are looked up by all of `identities`. `scopes` narrow what a token may be used for, None not at all.
    `is_platform_admin` means that no binding has to say so: authentication is off, or the settings or the
    gateway vouch for it. `service` is the one that acts in this principal's name, if one does.
    """

    id: str = ""
    email: str = ""
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    is_platform_admin: bool = False
    service: str = ""

    @property
    def identities(self) -> frozenset[str]:
        """Every name under which a role may have been bound to this caller."""
        return (self.groups | {self.id, self.email, EVERYBODY}) - {""}

    def has_scope_for(self, area: str, action: str) -> bool:
        """Whether its token, if it is limited at all, was issued for this `action` ("read" or "write")."""
        wanted = {f"{area}:{action}", f"platform:{action}"}
        return self.scopes is None or not self.scopes.isdisjoint(wanted)

    @property
    def is_service(self) -> bool:
        """One of the platform's own services."""
        return self.id.startswith(SERVICE_PREFIX)
