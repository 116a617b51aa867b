"""The views by which people sign in at the console, at the main issuer, and out."""

import re
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from hmac import compare_digest
from urllib.parse import unquote

from flask import Flask, Response, current_app, request, url_for

from app.access.code_flow import Attempt, CodeFlow, SignInFailed, failure_at_issuer
from app.console import cookies, visitor
from app.console.forms import sent_form
from app.console.rendering import notice
from app.errors import DomainError
from app.http.views import Service
from app.logs import get_logger

log = get_logger(__name__)

START = "/console"
ATTEMPT = cookies.Cookie(
    "workspaces_console_sign_in",
    path="/console/callback",
    # The issuer's redirect comes from another site, for which a browser keeps a strict cookie back.
    same_site="Lax",
    life_s=600,
)
_MAX_NEXT_CHARS = 1000
_NEXT = re.compile(r"/console([/?][!-~]*)?")


def register(app: Flask) -> None:
    """Add the views to `app`."""
    app.add_url_rule("/console/sign-in", "console.sign_in", _explained(_begin), methods=["GET"])
    app.add_url_rule("/console/callback", "console.callback", _explained(_finish), methods=["GET"])
    app.add_url_rule("/console/sign-out", "console.sign_out", _explained(_sign_out), methods=["POST"])


def own_path(text: str) -> str:
    """`text` if it is a path of the console, as it stands in a link of ours; else the console's first page.

    Nothing else may be where a sign-in leads: neither another server nor another part of this one.
    """
    is_own = len(text) <= _MAX_NEXT_CHARS and _NEXT.fullmatch(text) and "//" not in text and "\\" not in text
    # A browser resolves the dots, also where they are escaped.
    segments = re.split(r"[/\\]", unquote(text.partition("?")[0]))
    return text if is_own and not {".", ".."} & set(segments) else START


def _explained(view: Callable[[Service], Response]) -> Callable[[], Response]:
    """A view of Flask whose expected errors are pages of one sentence."""

    @wraps(view)
    def explained() -> Response:
        try:
            return view(current_app.extensions["service"])
        except DomainError as error:
            return _explanation(error)

    return explained


def _begin(service: Service) -> Response:
    """Send the browser to the issuer, to come back to `next` of the query."""
    go_to = own_path(request.args.get("next", ""))
    # There is nothing to sign in to where something else says who the visitor is.
    if not service.context.settings.auth_enabled or service.authenticator.named(request.headers.get):
        return _redirected(go_to)
    attempt = Attempt.new()
    response = _redirected(_flow(service).authorization_url(attempt))
    cookies.write(response, ATTEMPT, service.context, asdict(attempt) | {"next": go_to})
    return response


def _finish(service: Service) -> Response:
    """Look at what the issuer has sent the browser back with, and sign the browser in."""
    attempt, go_to = _begun_attempt(service)
    try:
        if (error := request.args.get("error")) is not None:
            raise failure_at_issuer(error)
        if not (code := request.args.get("code")):
            raise SignInFailed(400, "The issuer sent no code: begin again.", reason="no code")
        principal = _flow(service).principal(attempt, code)
        # Not a redirect: another site has caused this request, and a strict cookie is not sent along on its redirects.
        response = notice("You are signed in", "The console opens.", 200, go_to=go_to)
        visitor.sign_in(response, principal, service.context)
        log.info("console.signed_in", principal=principal.id)
    except DomainError as failed:
        response = _explanation(failed)
    # It counts once, however it ends.
    cookies.forget(response, ATTEMPT)
    return response


def _sign_out(service: Service) -> Response:
    """Have the browser forget every cookie of the console."""
    try:
        found = visitor.current(service)
    except visitor.NotSignedIn:
        found = None
    if found:
        visitor.require_token(found, sent_form().get("token", ""))
    if found and not found.is_signed_in:
        response = notice(
            "Nothing to sign out of", "You have not signed in here: something else says who you are.", 200
        )
    else:
        response = notice(
            "You are signed out", "The issuer may still know you, and sign you in again unasked.", 200
        )
    for cookie in (cookies.SESSION, cookies.MESSAGE, ATTEMPT):
        cookies.forget(response, cookie)
    return response


def _begun_attempt(service: Service) -> tuple[Attempt, str]:
    """The sign-in that the request ends, and where it leads. Raises SignInFailed unless this browser has begun it."""
    found = cookies.read(ATTEMPT, service.context)
    state = found.content["state"] if found else ""
    if not found or not compare_digest(request.args.get("state", "").encode(), state.encode()):
        raise SignInFailed(
            400,
            "This sign-in was not begun in this browser, was used, or took longer than ten minutes: begin again.",
            reason="unknown state",
        )
    secrets = {name: value for name, value in found.content.items() if name != "next"}
    return Attempt(**secrets), found.content["next"]


def _flow(service: Service) -> CodeFlow:
    back = url_for("console.callback", _external=True)
    return CodeFlow(service.context.settings, service.authenticator.tokens, redirect_uri=back)


def _redirected(url: str) -> Response:
    return Response(status=303, headers={"Location": url})


def _explanation(error: DomainError) -> Response:
    reason = error.reason if isinstance(error, SignInFailed) else type(error).__name__
    log.warning("console.refused", path=request.path, reason=reason)
    return notice("You are not signed in", error.message, error.status)
