"""Who is calling: proved by a token, or by the gateway in front of us, or, with authentication off, just said."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from hmac import compare_digest
from typing import Any

from app.access.principal import EVERYBODY, MAX_EMAIL_CHARS, SERVICE_PREFIX, Principal, is_name
from app.access.tokens import Claims, Tokens
from app.config import Settings
from app.errors import BadRequest, Forbidden, Unauthorized

Header = Callable[[str, str], str]
"""Reads one request header: `(name, default)`."""

GATEWAY_SECRET = "X-Workspaces-Gateway-Secret"  # noqa: S105 -- the name of the header, not what is in it
_PRINCIPAL = "X-NMP-Principal"
_DELEGATED = f"{_PRINCIPAL}-On-Behalf-Of"

_ID = re.compile(r"[a-zA-Z0-9@._\-:+/]{1,256}\Z")
_MAX_ID, _MAX_GROUPS = 256, 100


class Authenticator:
    """Tells who sent a request. One per process: it holds the keys of the token issuers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.tokens = Tokens(settings)

    def principal(self, header: Header) -> Principal:
        """The caller whom the headers prove.

        Raises BadRequest when a header is malformed, Unauthorized when nobody is proved, Forbidden for acting in
        the name of somebody else without being a service, Busy when a token cannot be checked just now.
        """
        if not self._settings.auth_enabled:
            return Principal(_identifier(header, f"{_PRINCIPAL}-Id"), is_platform_admin=True)
        if self._is_gateway(header):
            return self._vouched_for(header)
        scheme, _, token = header("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._trusting(self._from_claims(self.tokens.claims(token.strip())))
        if header(f"{_PRINCIPAL}-Id", ""):
            raise Unauthorized(
                f"Unauthorized: {_PRINCIPAL}-Id counts only together with the gateway's secret in {GATEWAY_SECRET}."
            )
        raise Unauthorized("Unauthorized")

    def _is_gateway(self, header: Header) -> bool:
        given, secret = header(GATEWAY_SECRET, ""), self._settings.gateway_secret.get_secret_value()
        if not given:
            return False
        if not secret or not compare_digest(given.encode(), secret.encode()):
            raise Unauthorized(f"Unauthorized: {GATEWAY_SECRET} is not the gateway's secret.")
        if header(_DELEGATED, "") and not header(f"{_PRINCIPAL}-Id", ""):
            raise BadRequest(f"{_DELEGATED} needs {_PRINCIPAL}-Id: the service that acts in that name.")
        return bool(header(f"{_PRINCIPAL}-Id", ""))

    def _vouched_for(self, header: Header) -> Principal:
        caller = _announced(header, f"{_PRINCIPAL}-Id", _PRINCIPAL)
        scopes = _scopes(header("X-NMP-Scopes", "").split(), prefix="")
        if not header(_DELEGATED, ""):
            caller = replace(caller, scopes=scopes)
            return replace(caller, is_platform_admin=True) if caller.is_service else self._trusting(caller)
        if not caller.is_service:
            raise Forbidden(f"Forbidden: only a service may send {_DELEGATED}.")
        # From here on the user's powers count, and not the service's.
        user = _announced(header, _DELEGATED, _DELEGATED)
        if user.is_service:
            raise Forbidden(f"Forbidden: {_DELEGATED} must name a user, not a service.")
        return self._trusting(replace(user, scopes=scopes, service=caller.id))

    def _from_claims(self, claims: Claims) -> Principal:
        settings = self._settings
        # Most issuers say nothing; one that says anything but yes has not checked that the address is the caller's.
        is_checked = claims.get("email_verified", True) in (True, "true")
        subject = claims[settings.oidc_subject_claim]
        is_users = isinstance(subject, str) and is_name(subject, _MAX_ID) and subject != EVERYBODY
        if not is_users or subject.startswith(SERVICE_PREFIX):
            raise Unauthorized("Invalid or expired token: its subject is not one that a user can have")
        if settings.oidc_subject_claim == settings.oidc_email_claim and not is_checked:
            raise Unauthorized("Invalid or expired token: its subject is an email that nobody has verified")
        email = claims.get(settings.oidc_email_claim)
        is_proved = is_checked and isinstance(email, str) and is_name(email, MAX_EMAIL_CHARS) and "@" in email
        groups = [*_listed(claims.get(settings.oidc_groups_claim)), *_listed(claims.get("cognito:groups"))]
        scopes = [*_listed(claims.get("scope"), " "), *_listed(claims.get("scp"), " ")]
        return Principal(
            subject,
            email=_unless_service(str(email)) if is_proved else "",
            groups=frozenset(one for one in groups if is_name(one, _MAX_ID) and _unless_service(one)),
            scopes=_scopes(scopes, prefix=settings.oidc_scope_prefix),
        )

    def _trusting(self, principal: Principal) -> Principal:
        admin, email = self._settings.admin_email, principal.email
        # Only ASCII has cases here: Unicode would also take a Kelvin sign or a long s for a k or an s.
        is_admin = email == admin or (email.isascii() and email.lower() == admin.lower())
        return replace(principal, is_platform_admin=bool(admin) and is_admin)


def _announced(header: Header, id_header: str, prefix: str) -> Principal:
    email = header(f"{prefix}-Email", "")
    if len(email) > MAX_EMAIL_CHARS or not (email.isprintable() or not email):
        raise BadRequest(f"{prefix}-Email must be at most {MAX_EMAIL_CHARS} printable characters.")
    groups = [one.strip() for one in header(f"{prefix}-Groups", "").split(",") if one.strip()]
    if len(groups) > _MAX_GROUPS or not all(is_name(one, _MAX_ID) for one in groups):
        raise BadRequest(
            f"{prefix}-Groups must list at most {_MAX_GROUPS} names, separated by commas, "
            f"each of at most {_MAX_ID} printable characters."
        )
    return Principal(_identifier(header, id_header), email=email, groups=frozenset(groups))


def _identifier(header: Header, name: str) -> str:
    value = header(name, "")
    if value and not _ID.match(value):
        raise BadRequest(
            f"{name} contains invalid characters or is longer than {_MAX_ID}; "
            "allowed: letters, digits and @ . _ - : + /"
        )
    return value


def _scopes(given: Iterable[str], *, prefix: str) -> frozenset[str] | None:
    """The scopes that narrow what the caller may do; None if none does."""
    # As the command line writes them: with a slash between the two.
    prefix = prefix and prefix.removesuffix("/") + "/"
    scopes = [one.removeprefix(prefix) for one in given]
    for scope in scopes:
        # Addresses are scopes of other services, and no mistake.
        if "." in scope and "/" not in scope:
            raise BadRequest(
                f"Invalid scope '{scope[:100]}': this value uses permission syntax (dots). "
                "Scopes are written with a colon, such as 'entities:read'."
            )
    return frozenset(one for one in scopes if ":" in one) or None


def _listed(claim: Any, separator: str = ",") -> list[str]:
    if isinstance(claim, str):
        return [one.strip() for one in claim.split(separator) if one.strip()]
    return [one for one in claim if isinstance(one, str)] if isinstance(claim, list) else []


def _unless_service(text: str) -> str:
    return "" if text.startswith(SERVICE_PREFIX) else text
