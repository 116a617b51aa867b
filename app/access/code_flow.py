"""Signing a browser in at the main issuer: OpenID Connect's authorization code flow with PKCE. Authlib speaks OAuth."""

import json
import re
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Self
from urllib.error import HTTPError
from urllib.parse import urlencode

from app.access.claims import principal_of
from app.access.exchange import Document, fetch
from app.access.issuers import Issuer
from app.access.principal import Principal
from app.access.tokens import Tokens
from app.config import Settings
from app.errors import Busy, DomainError, Unauthorized

if TYPE_CHECKING:
    from authlib.oauth2 import OAuth2Client

EXCHANGE_TIMEOUT_S = 5.0
_ERROR_CODE = re.compile(r"[a-z_]{1,50}")
_EXCHANGES = threading.BoundedSemaphore(2)
"""An issuer that hangs must not take all threads of a process: anybody can begin a sign-in."""


class SignInFailed(DomainError):
    """Nobody was signed in; `reason` is for the log, and has nothing that the issuer or the browser has sent."""

    def __init__(self, status: int, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Attempt:
    """The secrets of one sign-in. The issuer repeats `state` and `nonce`; `verifier` is PKCE's."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> Self:
        """One that nobody can guess."""
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))


class CodeFlow:
    """The product as a client of its main issuer."""

    def __init__(self, settings: Settings, tokens: Tokens, *, redirect_uri: str) -> None:
        """Raises SignInFailed if the settings name no issuer, or no client."""
        if not (settings.oidc_issuer and settings.oidc_client_id):
            raise SignInFailed(
                503,
                "Nobody can sign in here: the console needs a gateway in front of this server that says who you are, "
                "or its operator sets WORKSPACES_OIDC_ISSUER and WORKSPACES_OIDC_CLIENT_ID.",
                reason="no issuer",
            )
        self._settings, self._tokens = settings, tokens
        self._issuer: Issuer = tokens.issuers[settings.oidc_issuer]
        self._redirect_uri = redirect_uri

    def authorization_url(self, attempt: Attempt) -> str:
        """Where the browser is sent. Raises Busy while the issuer does not say."""
        endpoint = self._issuer.endpoint("authorization_endpoint")
        url: str
        url, _ = self._client().create_authorization_url(
            endpoint, state=attempt.state, nonce=attempt.nonce, code_verifier=attempt.verifier
        )
        return url

    def principal(self, attempt: Attempt, code: str) -> Principal:
        """Whom the issuer has signed in, by the code with which it has sent the browser back.

        Raises SignInFailed if it does not say so, Busy while it cannot be asked, Unauthorized or BadRequest for claims
        that no user has.
        """
        token = self._exchange(code, attempt.verifier).get("id_token")
        if not isinstance(token, str):
            raise SignInFailed(502, "The issuer sent no ID token.", reason="no ID token")
        try:
            claims = self._tokens.identity(token, nonce=attempt.nonce)
        except Unauthorized as error:
            message = f"What the issuer sent proves nothing: {error.message}."
            raise SignInFailed(502, message, reason=error.message) from None
        return principal_of(claims, self._settings)

    def _exchange(self, code: str, verifier: str) -> Mapping[str, Any]:
        """What the token endpoint gives for the code. Raises Busy or SignInFailed."""
        from authlib.common.errors import AuthlibBaseError  # noqa: PLC0415 -- most processes sign nobody in

        endpoint = self._issuer.endpoint("token_endpoint")
        if not _EXCHANGES.acquire(blocking=False):
            raise Busy("Too many people are signing in at this moment: begin again.")
        answer: Mapping[str, Any]
        try:
            answer = self._client().fetch_token(
                endpoint, grant_type="authorization_code", code=code, code_verifier=verifier
            )
        except HTTPError as error:
            raise _refused(error) from None
        except (OSError, HTTPException) as error:
            reason = type(error).__name__
            raise SignInFailed(503, "The issuer does not answer: begin again.", reason=reason) from None
        except (AuthlibBaseError, ValueError, TypeError, RecursionError) as error:
            reason = type(error).__name__
            raise SignInFailed(
                502, "The issuer's answer cannot be used: begin again.", reason=reason
            ) from None
        finally:
            _EXCHANGES.release()
        return answer

    def _client(self) -> "OAuth2Client":
        from authlib.oauth2 import OAuth2Client  # noqa: PLC0415 -- most processes sign nobody in

        secret = self._settings.oidc_client_secret.get_secret_value()
        scopes = dict.fromkeys(["openid", *self._settings.oidc_default_scopes.split()])
        return OAuth2Client(
            _BoundedSession(),
            client_id=self._settings.oidc_client_id,
            client_secret=secret or None,
            token_endpoint_auth_method=_proof_of_client(self._issuer.document()) if secret else "none",
            scope=" ".join(scopes),
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
        )


def failure_at_issuer(code: str) -> SignInFailed:
    """What the visitor is told about the error with which the issuer has sent the browser back."""
    code = code if _ERROR_CODE.fullmatch(code) else "unknown"
    if code == "access_denied":
        return SignInFailed(403, "The issuer has denied you the sign-in.", reason=code)
    status = 503 if code in {"temporarily_unavailable", "server_error"} else 502
    return SignInFailed(status, f"The issuer did not sign you in ({code}): begin again.", reason=code)


def _refused(error: HTTPError) -> SignInFailed:
    with error:
        reason = f"status {error.code} {_code_of(error)}".strip()
    # A code that was used or is too old is the usual reason for this one.
    status = 400 if error.code == 400 else 502
    return SignInFailed(status, "The issuer does not accept this sign-in: begin again.", reason=reason)


def _code_of(error: HTTPError) -> str:
    """The issuer's word for what is wrong; empty if there is none."""
    with suppress(OSError, HTTPException, ValueError, AttributeError, RecursionError):
        # One read, which the deadline of the exchange bounds.
        code = str(json.loads(error.read1(4096)).get("error"))
        return code if _ERROR_CODE.fullmatch(code) else ""
    return ""


def _proof_of_client(document: Document) -> str:
    supported = document.get("token_endpoint_auth_methods_supported")
    only_in_form = isinstance(supported, list) and "client_secret_basic" not in supported
    return "client_secret_post" if only_in_form else "client_secret_basic"


class _BoundedSession:
    """The requests of Authlib's client: to https alone, with a time-out, a bounded answer, and no redirects."""

    def post(self, url: str, *, data: Mapping[str, str], headers: Mapping[str, str], auth: Any) -> "_Answer":
        url, all_headers, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        return _Answer(fetch(url, form=body.encode(), headers=all_headers, timeout_s=EXCHANGE_TIMEOUT_S))


@dataclass(frozen=True)
class _Answer:
    """A successful one, as Authlib reads it: `fetch` raises for all others."""

    document: Document
    status_code: int = 200

    def json(self) -> Document:
        return self.document
