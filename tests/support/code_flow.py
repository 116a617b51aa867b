"""An issuer at which people sign in: its page that sends the browser back, and a token endpoint that checks PKCE."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.support.issuer import AUDIENCE, Key, LocalIssuer


def query_of(url: str) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlsplit(url).query).items()}


@dataclass
class SignInIssuer(LocalIssuer):
    """Everybody who comes is signed in as ann; `claims` change what her ID token says."""

    claims: dict[str, Any] = field(default_factory=dict)
    client_secret: str = ""
    signing_key: Key | None = None
    answer_to_code: Any = None
    """Sent instead of tokens."""
    forms: list[dict[str, str]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    _begun: dict[str, dict[str, str]] = field(default_factory=dict)

    def answer(self, path: str) -> Any:
        found = super().answer(path)
        if path == "/.well-known/openid-configuration":
            found = {"authorization_endpoint": f"{self.url}/authorize"} | found
        return found

    def sign_in(self, url: str) -> str:
        """Where a browser that was sent to `url` is sent back to."""
        asked = query_of(url)
        assert url.startswith(f"{self.url}/authorize?")
        assert (asked["response_type"], asked["client_id"]) == ("code", AUDIENCE)
        assert "openid" in asked["scope"].split()
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe()
        self._begun[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def posted(self, path: str, form: str, authorization: str) -> tuple[int, Any]:
        given = {name: value for name, [value] in parse_qs(form).items()}
        self.forms.append(given)
        self.authorizations.append(authorization)
        if self.answer_to_code is not None:
            return self.answer_to_code
        if not self._knows_client(given, authorization):
            return 401, {"error": "invalid_client"}
        # A code counts once.
        asked = self._begun.pop(given["code"], None)
        digest = hashlib.sha256(given["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            path != "/token"
            or given["grant_type"] != "authorization_code"
            or asked is None
            or given["redirect_uri"] != asked["redirect_uri"]
            or challenge != asked["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        identity = self.token(key=self.signing_key, **{"nonce": asked["nonce"]} | self.claims)
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": identity}

    def _knows_client(self, given: dict[str, str], authorization: str) -> bool:
        if not self.client_secret:
            return given["client_id"] == AUDIENCE
        basic = base64.b64encode(f"{AUDIENCE}:{self.client_secret}".encode()).decode()
        return authorization == f"Basic {basic}" or given.get("client_secret") == self.client_secret
