"""The cookies of the console, signed with the keys of WORKSPACES_CONSOLE_KEY_FILE: each has one purpose and an end.

They are signed, not encrypted: who has the browser can read them, and nothing of the server's is in them.
"""

from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, Literal

from flask import Response, request
from itsdangerous import BadData, URLSafeTimedSerializer

from app import clock
from app.config import Settings
from app.config.keys import read_keys
from app.context import Context
from app.errors import Busy
from app.logs import get_logger

log = get_logger(__name__)

MAX_MESSAGE_CHARS = 500
_MESSAGE_SECONDS = 60

Kind = Literal["done", "refused"]


@dataclass(frozen=True)
class Cookie:
    """One of our cookies."""

    name: str
    path: str = "/console"
    same_site: Literal["Strict", "Lax"] = "Strict"
    life_s: int | None = None
    """None for the life of a sign-in."""

    def life_in_s(self, settings: Settings) -> int:
        """Its life by the settings of now, which counts for those that are out, too."""
        return int(settings.console_session_seconds) if self.life_s is None else self.life_s


SESSION = Cookie("workspaces_console")
MESSAGE = Cookie("workspaces_console_said", life_s=_MESSAGE_SECONDS)


@dataclass(frozen=True)
class Content:
    """What a valid cookie of the request holds."""

    content: Any
    age: timedelta


def read(cookie: Cookie, context: Context) -> Content | None:
    """What the request's cookie of that sort holds; None without one, or if it is forged or older than its life.

    Raises Busy while there are no keys.
    """
    serializer = _serializer(cookie, context.settings)
    try:
        content, signed_at = serializer.loads(
            request.cookies.get(cookie.name, ""),
            max_age=cookie.life_in_s(context.settings),
            return_timestamp=True,
        )
    except BadData:
        return None
    return Content(content, clock.now() - signed_at)


def signed(cookie: Cookie, context: Context, content: Any) -> str:
    """The value of a cookie with that content. Raises Busy while there are no keys."""
    value = _serializer(cookie, context.settings).dumps(content)
    return value if isinstance(value, str) else value.decode()


def write(response: Response, cookie: Cookie, context: Context, content: Any) -> None:
    """Give the browser a cookie with that content. Raises Busy while there are no keys."""
    response.set_cookie(
        cookie.name,
        signed(cookie, context, content),
        max_age=cookie.life_in_s(context.settings),
        path=cookie.path,
        secure=request.is_secure,
        httponly=True,
        samesite=cookie.same_site,
    )


def forget(response: Response, cookie: Cookie) -> None:
    """Have the browser remove the cookie."""
    response.delete_cookie(
        cookie.name, path=cookie.path, secure=request.is_secure, httponly=True, samesite=cookie.same_site
    )


def say(response: Response, context: Context, text: str, *, kind: Kind = "done") -> None:
    """Give the next page a message, which is cut after MAX_MESSAGE_CHARS. Raises Busy while there are no keys."""
    short = text if len(text) <= MAX_MESSAGE_CHARS else f"{text[: MAX_MESSAGE_CHARS - 1]}…"
    write(response, MESSAGE, context, [kind, short])


def message(context: Context) -> tuple[Kind, str] | None:
    """The message for this page: what sort, and its text. None without one, or while there are no keys.

    Only ours: a link cannot carry one. Whoever shows it calls `forget_message`.
    """
    try:
        found = read(MESSAGE, context)
    except Busy:
        return None
    if found is None:
        return None
    kind, text = found.content
    return kind, text


def forget_message(response: Response) -> None:
    """The message of the request was shown: have the browser remove it."""
    if MESSAGE.name in request.cookies:
        forget(response, MESSAGE)


def _serializer(cookie: Cookie, settings: Settings) -> URLSafeTimedSerializer:
    if not settings.console_key_file:
        raise Busy(
            "The console has no key to sign its cookies with: the operator of this server has to set "
            "WORKSPACES_CONSOLE_KEY_FILE."
        )
    keys, reason = _keys_in(settings.console_key_file)
    if reason:
        log.error("console.keys_unusable", reason=reason)
        raise Busy(
            "The keys that sign the console's cookies cannot be used: the operator of this server has to mend the file "
            "of WORKSPACES_CONSOLE_KEY_FILE, as its log says."
        )
    return URLSafeTimedSerializer(
        # The last of them signs there.
        list(reversed(keys)),
        # A cookie of one sort is none of another; nor is one from the time of another issuer.
        salt=f"{cookie.name} {settings.oidc_issuer}",
        signer_kwargs={"key_derivation": "hmac", "digest_method": sha256},
    )


def _keys_in(file: str) -> tuple[tuple[bytes, ...], str]:
    """The keys that are in the file now: no process has to be restarted for another one. Or why there are none."""
    try:
        return read_keys(file), ""
    except ValueError as error:
        return (), str(error)
