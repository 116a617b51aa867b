"""Authentication by a bearer token or by the gateway's headers; with authentication off, a header names the caller."""

from dataclasses import dataclass, replace
from hmac import compare_digest

from app.access.claims import holder_of, principal_of, restricting, scopes_of
from app.access.gateway import FAMILIES, Header, identifier
from app.access.principal import SERVICE_PREFIX, Principal
from app.access.tokens import TokenKind, Tokens
from app.config import Settings
from app.errors import BadRequest, Forbidden, Unauthorized

GATEWAY_SECRET = "X-Workspaces-Gateway-Secret"  # noqa: S105 -- the name of the header, not its value

ANY_SERVICE = "*"
"""Among the services of the settings: every id that the gateway vouches for as one."""


@dataclass(frozen=True)
class Bearer:
    """Whom a valid token belongs to, and what else it says."""

    principal: Principal
    kind: TokenKind
    scopes: tuple[str, ...]
    """All of them, also those that restrict nothing."""
    token_id: str | None
    """Its claim `jti`."""


class Authenticator:
    """Authenticates requests. One per process, because it caches the keys of the token issuers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._headers = FAMILIES[settings.gateway_headers]
        self.tokens = Tokens(settings)

    def principal(self, header: Header) -> Principal:
        """The authenticated caller.

        Raises BadRequest for a malformed header, Unauthorized for missing or invalid credentials, Forbidden for
        delegation by a caller that is not a service, Busy while a token cannot be verified.
        """
        if not self._settings.auth_enabled:
            return Principal(identifier(header, self._headers.caller), is_platform_admin=True)
        named = self.named(header)
        if named is None:
            raise Unauthorized("Unauthorized")
        return named

    def named(self, header: Header) -> Principal | None:
        """The caller whom the gateway or a bearer token names; None if the request has neither.

        Raises as `principal` does for what is there and proves nothing.
        """
        if self._is_gateway(header):
            return self._from_gateway(header)
        if (token := bearer_token(header)) is not None:
            return self.bearer(token).principal
        if header(name := self._headers.caller, ""):
            raise Unauthorized(
                f"Unauthorized: {name} is accepted only with the gateway's secret in {GATEWAY_SECRET}."
            )
        return None

    def bearer(self, token: str) -> Bearer:
        """Whom the token belongs to, also while authentication is off.

        Raises Unauthorized for an invalid token, BadRequest for a scope of another form, Busy while it cannot be
        verified.
        """
        verified = self.tokens.verified(token)
        claims = verified.claims
        if verified.kind is TokenKind.ACCESS_KEY:
            return Bearer(holder_of(claims), verified.kind, (), claims["jti"])
        principal, token_id = principal_of(claims, self._settings), claims.get("jti")
        # A further issuer may name anybody, but for the administrator, whose email is that of the main one.
        is_main = claims.get("iss") == self._settings.oidc_issuer or self._settings.allow_unsigned_jwt
        return Bearer(
            self.with_admin(principal) if is_main else principal,
            verified.kind,
            tuple(scopes_of(claims, self._settings)),
            token_id if isinstance(token_id, str) else None,
        )

    def with_admin(self, principal: Principal) -> Principal:
        """The same principal, with `is_platform_admin` set if its email is that of the settings."""
        admin, email = self._settings.admin_email, principal.email
        # Case is folded for ASCII only: in Unicode a Kelvin sign folds to k and a long s to s.
        is_admin = email == admin or (email.isascii() and email.lower() == admin.lower())
        return replace(principal, is_platform_admin=bool(admin) and is_admin)

    def _is_gateway(self, header: Header) -> bool:
        given, secret = header(GATEWAY_SECRET, ""), self._settings.gateway_secret.get_secret_value()
        if not given:
            return False
        if not secret or not compare_digest(given.encode(), secret.encode()):
            raise Unauthorized(f"Unauthorized: {GATEWAY_SECRET} is not the gateway's secret.")
        ours = self._headers
        # A gateway that does not know of them passes on what a client has sent, or speaks as this server does not hear.
        if foreign := [name for one in FAMILIES.values() if one != ours for name in one.sent(header)]:
            raise BadRequest(
                f"{foreign[0]} is no header of this server's gateway, whose headers begin with {ours.family}- "
                "(WORKSPACES_GATEWAY_HEADERS): the gateway must remove it."
            )
        if ours.delegates(header) and not header(ours.caller, ""):
            raise BadRequest(
                f"{ours.user} needs {ours.caller}, the id of the service that acts for the user."
            )
        return bool(header(ours.caller, ""))

    def _from_gateway(self, header: Header) -> Principal:
        ours = self._headers
        caller = ours.named_caller(header)
        scopes = restricting(header(ours.scopes, "").split())
        if caller.is_service:
            self._require_known(caller.id)
        if not ours.delegates(header):
            caller = replace(caller, scopes=scopes)
            return replace(caller, is_platform_admin=True) if caller.is_service else self.with_admin(caller)
        if not header(ours.user, "").strip():
            # A service that forwards a user whom it does not know must not act with its own rights instead.
            raise BadRequest(
                f"{ours.user} is empty: name the user, or send none of its headers to act as yourself."
            )
        if not caller.is_service:
            raise Forbidden(f"Forbidden: only a service may send {ours.user}.")
        # From here on the permissions of the user count, not those of the service.
        user = ours.named_user(header)
        if user.is_service:
            raise Forbidden(f"Forbidden: {ours.user} must name a user, not a service.")
        return self.with_admin(replace(user, scopes=scopes, service=caller.id))

    def _require_known(self, service: str) -> None:
        known = self._settings.services
        if ANY_SERVICE not in known and service.removeprefix(SERVICE_PREFIX) not in known:
            raise Forbidden(f"Forbidden: '{service}' is not one of the services in WORKSPACES_SERVICES.")


def bearer_token(header: Header) -> str | None:
    """The bearer token of the request, or None if it has none. Raises Unauthorized if the header is malformed."""
    scheme, _, token = header("Authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = token.strip()
    if not token or len(token.split()) > 1:
        raise Unauthorized("Invalid bearer token")
    return token
