"""The caller of a request. Its permissions are decided in the database, by `authorize`."""

from dataclasses import dataclass

EVERYBODY = "*"
"""The identity shared by every authenticated caller: a role bound to it belongs to everybody."""

SERVICE_PREFIX = "service:"
"""Prefix of the ids of the platform's own services. Only the gateway can authenticate one; a token cannot."""

SERVICE_ACCOUNT_PREFIX = "service-account:"
"""Prefix of the ids of service accounts, which have roles as users have. Their access keys authenticate them."""

FORGOTTEN_PREFIX = "forgotten:"
"""Prefix of what stands in the place of a principal that was forgotten."""

MAX_EMAIL_CHARS = 320
"""The longest possible identity; ids and groups are shorter."""

MAX_ID_CHARS = 256
"""The longest id of a principal, or name of a group."""


def is_name(text: str, longest: int) -> bool:
    """Whether the text is a valid id, email or group: printable, without white space at either end."""
    return 0 < len(text) <= longest and text.isprintable() and text == text.strip()


def is_reserved(name: str) -> bool:
    """Whether the name is of a sort that no token of an issuer can claim."""
    return name.startswith((SERVICE_PREFIX, SERVICE_ACCOUNT_PREFIX, FORGOTTEN_PREFIX))


def folded(name: str) -> str:
    """The form in which emails are compared: without case, as far as ASCII goes. Other names are what they are.

    SQL has it as `app.models.role_binding.folded_principal`.
    """
    return name.encode().lower().decode() if "@" in name else name


@dataclass(frozen=True)
class Principal:
    """An authenticated caller; `id` may be empty while authentication is off.

    Roles are looked up by all of `identities`. `scopes` restrict the use of a token; None means no restriction.
    `is_platform_admin` needs no role binding: it comes from the settings, from the gateway, or from authentication
    being off. `service` is the service that acts on behalf of this principal; empty without one. `access_key` is the id
    of the access key that has authenticated it, whose state the database knows; empty without one.
    """

    id: str = ""
    email: str = ""
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    is_platform_admin: bool = False
    service: str = ""
    access_key: str = ""

    @property
    def identities(self) -> frozenset[str]:
        """Every name to which a role of this caller may be bound; the email counts in any spelling."""
        return (self.groups | {self.id, self.email, EVERYBODY}) - {""}

    def has_scope_for(self, area: str, action: str) -> bool:
        """Whether the scopes, if there are any, include this `action` ("read" or "write") in the area."""
        sufficient = {f"{area}:{action}", f"platform:{action}"}
        return self.scopes is None or not self.scopes.isdisjoint(sufficient)

    @property
    def is_service(self) -> bool:
        """Whether the caller is one of the platform's own services."""
        return self.id.startswith(SERVICE_PREFIX)

    @property
    def is_service_account(self) -> bool:
        """Whether the caller is a service account."""
        return self.id.startswith(SERVICE_ACCOUNT_PREFIX)
