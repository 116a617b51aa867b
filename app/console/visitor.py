"""Who sits at the console: by the gateway, by a token, or by the cookie of a sign-in; and the token of its forms."""

import secrets
from dataclasses import asdict, dataclass, replace
from hmac import compare_digest

from flask import Response, request

from app.access.principal import Principal
from app.config import Settings
from app.console import cookies
from app.context import Context
from app.errors import Forbidden, Unauthorized
from app.http.views import Service

MAX_COOKIE_BYTES = 3800
"""Browsers keep 4096, with the name and the attributes of the cookie."""

_LOOPBACK = {"127.0.0.1", "::1"}


class NotSignedIn(Unauthorized):
    """The request names no caller and has no cookie of a sign-in."""


@dataclass(frozen=True)
class Visitor:
    """Who sits there."""

    principal: Principal
    token: str
    """What each form has as its field `token`: pages of other sites cannot know it."""
    is_signed_in: bool
    """Whether there is something to sign out of: a gateway and the mode without authentication have nothing here."""


@dataclass(frozen=True)
class Session:
    """What the cookie holds: the token of the forms, and for whom it was made."""

    token: str
    id: str
    email: str = ""
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] | None = None
    is_signed_in: bool = False
    """Whether it proves who the visitor is. Where something else does, it only holds the token."""

    @property
    def principal(self) -> Principal:
        """Whom the issuer named at the sign-in; whether that is the administrator is not in the cookie."""
        scopes = None if self.scopes is None else frozenset(self.scopes)
        return Principal(self.id, email=self.email, groups=frozenset(self.groups), scopes=scopes)


def current(service: Service) -> Visitor:
    """Who has sent the request.

    Raises NotSignedIn if nothing says; Forbidden for another machine while authentication is off; Busy while the
    console has no keys; and what the API's authentication raises for credentials that prove nothing.
    """
    authenticator, settings = service.authenticator, service.context.settings
    if settings.auth_enabled:
        named = authenticator.named(request.headers.get)
    else:
        _require_this_machine()
        named = authenticator.principal(request.headers.get)
    found = _session(service.context)
    if named is not None:
        # A cookie of somebody else, planted here or left by whom the gateway named before, has no say over our forms.
        is_own = found is not None and found.id == named.id
        token = found.token if found and is_own else _new_token()
        return Visitor(named, token, is_signed_in=False)
    if found is None or not found.is_signed_in:
        raise NotSignedIn("Sign in first.")
    return Visitor(authenticator.with_admin(found.principal), found.token, is_signed_in=True)


def require_token(visitor: Visitor, given: str) -> None:
    """Raises Forbidden unless `given`, the field `token` of a form, is that of the visitor."""
    if not compare_digest(given.encode(), visitor.token.encode()):
        raise Forbidden("Forbidden: the form is out of date: load the page again.")


def complete(response: Response, visitor: Visitor, context: Context) -> None:
    """Give the browser the cookie with the token of the forms, if it has none or it is about to end.

    Never that of a sign-in: it ends in its time, whatever is done meanwhile.
    """
    if visitor.is_signed_in:
        return
    found = cookies.read(cookies.SESSION, context)
    session = _session_of(found)
    is_young = found and found.age.total_seconds() < cookies.SESSION.life_in_s(context.settings) / 2
    if not (session and is_young and session.token == visitor.token):
        own = Session(visitor.token, visitor.principal.id)
        cookies.write(response, cookies.SESSION, context, asdict(own))


def sign_in(response: Response, principal: Principal, context: Context) -> None:
    """Give the browser the cookie of a sign-in, with a token that no one before it has had.

    Raises Forbidden, with the claim that is too large, if no browser would keep the cookie.
    """
    scopes = None if principal.scopes is None else tuple(sorted(principal.scopes))
    session = Session(
        _new_token(),
        principal.id,
        principal.email,
        tuple(sorted(principal.groups)),
        scopes,
        is_signed_in=True,
    )
    if len(cookies.signed(cookies.SESSION, context, asdict(session))) > MAX_COOKIE_BYTES:
        raise Forbidden(
            f"Forbidden: your token's claim '{_largest_claim(session, context.settings)}' is too large for the cookie "
            f"of the console, which holds {MAX_COOKIE_BYTES} bytes: have the issuer name only the groups that have "
            "roles here, or use the command line."
        )
    cookies.write(response, cookies.SESSION, context, asdict(session))


def _largest_claim(session: Session, settings: Settings) -> str:
    sizes = {
        settings.oidc_groups_claim: len("".join(session.groups)),
        "scope": len("".join(session.scopes or ())),
        settings.oidc_email_claim: len(session.email),
        settings.oidc_subject_claim: len(session.id),
    }
    return max(sizes, key=lambda claim: sizes[claim])


def _require_this_machine() -> None:
    if request.remote_addr not in _LOOPBACK:
        raise Forbidden(
            "Forbidden: without authentication the console is for this machine alone: open it by 127.0.0.1, or set "
            "WORKSPACES_AUTH_ENABLED=true."
        )


def _session(context: Context) -> Session | None:
    return _session_of(cookies.read(cookies.SESSION, context))


def _session_of(found: cookies.Content | None) -> Session | None:
    try:
        session = Session(**found.content) if found else None
    except TypeError:
        # Of a release with other fields: its visitor signs in again.
        return None
    # JSON has no tuples.
    return session and replace(session, groups=tuple(session.groups))


def _new_token() -> str:
    return secrets.token_urlsafe(32)
