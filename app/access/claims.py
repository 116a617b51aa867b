"""What a token says of its bearer: the principal behind its claims."""

from collections.abc import Iterable
from typing import Any

from app.access.principal import (
    EVERYBODY,
    MAX_EMAIL_CHARS,
    MAX_ID_CHARS,
    Principal,
    is_name,
    is_reserved,
)
from app.access.tokens import Claims
from app.config import Settings
from app.errors import BadRequest, Unauthorized


def principal_of(claims: Claims, settings: Settings) -> Principal:
    """Whom an issuer's token names. Raises Unauthorized for a subject that is no user, BadRequest for a bad scope."""
    # Most issuers omit the claim. Any other value than true means that the issuer has not verified the address.
    is_verified = claims.get("email_verified", True) in (True, "true")
    subject = claims[settings.oidc_subject_claim]
    is_user_id = isinstance(subject, str) and is_name(subject, MAX_ID_CHARS) and subject != EVERYBODY
    if not is_user_id or is_reserved(subject):
        raise Unauthorized("Invalid or expired token: its subject is not a valid user id")
    if settings.oidc_subject_claim == settings.oidc_email_claim and not is_verified:
        raise Unauthorized("Invalid or expired token: its subject is an unverified email")
    email = claims.get(settings.oidc_email_claim)
    is_email = isinstance(email, str) and is_name(email, MAX_EMAIL_CHARS) and "@" in email
    groups = [*_as_list(claims.get(settings.oidc_groups_claim)), *_as_list(claims.get("cognito:groups"))]
    return Principal(
        subject,
        email=str(email) if is_verified and is_email and not is_reserved(str(email)) else "",
        groups=frozenset(one for one in groups if is_name(one, MAX_ID_CHARS) and not is_reserved(one)),
        scopes=restricting(scopes_of(claims, settings)),
    )


def holder_of(claims: Claims) -> Principal:
    """Whom the token of an access key names, which this product has signed.

    It has no groups: nobody says whether its holder is still in them. Nor is it ever an administrator by the settings.
    """
    return Principal(claims["sub"], email=claims.get("email", ""), access_key=claims["jti"])


def scopes_of(claims: Claims, settings: Settings) -> list[str]:
    """The scopes of a token, without the prefix of its issuer, in their order."""
    # The CLI separates prefix and scope with a slash.
    prefix = settings.oidc_scope_prefix and settings.oidc_scope_prefix.removesuffix("/") + "/"
    given = [*_as_list(claims.get("scope"), " "), *_as_list(claims.get("scp"), " ")]
    return list(dict.fromkeys(one.removeprefix(prefix) for one in given))


def restricting(scopes: Iterable[str]) -> frozenset[str] | None:
    """The scopes that restrict the caller; None if none does. Raises BadRequest for one of another form."""
    scopes = list(scopes)
    for scope in scopes:
        # URLs are valid scopes of other services.
        if "." in scope and "/" not in scope:
            raise BadRequest(
                f"Invalid scope '{scope[:100]}': this value uses permission syntax (dots). "
                "Scopes are written with a colon, such as 'entities:read'."
            )
    return frozenset(one for one in scopes if ":" in one) or None


def _as_list(claim: Any, separator: str = ",") -> list[str]:
    if isinstance(claim, str):
        return [one.strip() for one in claim.split(separator) if one.strip()]
    return [one for one in claim if isinstance(one, str)] if isinstance(claim, list) else []
