"""Bearer tokens (JWTs). PyJWT does parsing and cryptography; this module chooses issuer, key and required claims."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from hmac import compare_digest
from typing import Any

import jwt

from app.access.issuers import ALGORITHMS, Issuer
from app.access.keys.signing import ISSUER, SigningKeys
from app.config import Settings
from app.errors import Unauthorized

MAX_CHARS = 16 * 1024
"""A longer token is refused before parsing."""

Claims = dict[str, Any]

_REASONS: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidIssuedAtError: "its time of issue is invalid",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.InvalidAlgorithmError: "its algorithm is not that of its key",
}


class TokenKind(StrEnum):
    """What sort of token a bearer has shown."""

    ACCESS_KEY = "access_key"  #: Of an access key. The database knows whether that is in force.
    OIDC = "oidc_access_token"  #: Of a trusted issuer, or an unsigned one where these are accepted.


@dataclass(frozen=True)
class Token:
    """What a valid token says."""

    claims: Claims
    kind: TokenKind


class Tokens:
    """Verifies tokens. One per process, because it caches the keys of the issuers."""

    def __init__(self, settings: Settings) -> None:
        """Raises UnusableSigningFile."""
        self._settings = settings
        self.signing_keys = SigningKeys.of(settings)
        self.issuers: dict[str, Issuer] = {}
        if settings.oidc_issuer:
            main = Issuer(settings.oidc_issuer, settings, jwks_uri=settings.oidc_jwks_uri)
            others = [Issuer(url, settings) for url in settings.oidc_additional_issuers]
            # The main issuer last: if it is also among the others, the one with `jwks_uri` replaces that one.
            self.issuers = {issuer.url: issuer for issuer in (*others, main)}

    def verified(self, token: str) -> Token:
        """What a valid token says.

        Raises Unauthorized with the reason, never quoting the token; Busy while the issuer's keys cannot be fetched.
        """
        if not (self.issuers or self._own_keys or self._settings.allow_unsigned_jwt):
            raise Unauthorized("Bearer token authentication not configured")
        with _refusing_malformed(token):
            header = jwt.get_unverified_header(token)
            if header.get("alg") == "none":
                return Token(self._unsigned(token), TokenKind.OIDC)
            return self._signed(token, header)

    def identity(self, token: str, *, nonce: str) -> Claims:
        """What an ID token says that the main issuer has made for our client, and for the sign-in with that nonce.

        Raises Unauthorized with the reason, never quoting the token; Busy while the issuer's keys cannot be fetched.
        """
        client = self._settings.oidc_client_id
        with _refusing_malformed(token):
            header = jwt.get_unverified_header(token)
            main = self.issuers.get(self._settings.oidc_issuer)
            claims = self._of_issuer(token, header, main, audience=client)
        given = claims.get("nonce")
        if not isinstance(given, str) or not compare_digest(given.encode(), nonce.encode()):
            raise _invalid("its nonce is not that of this sign-in")
        # One for several audiences names the client that asked for it.
        if claims.get("azp", client) != client:
            raise _invalid("another client has asked for it")
        return claims

    @property
    def _own_keys(self) -> SigningKeys | None:
        return self.signing_keys if self._settings.access_keys_enabled else None

    def _unsigned(self, token: str) -> Claims:
        if not self._settings.allow_unsigned_jwt:
            raise Unauthorized(
                "Unsigned JWTs are not accepted. Set WORKSPACES_ALLOW_UNSIGNED_JWT=true for local development."
            )
        if not token.endswith("."):
            raise _invalid("it claims to be unsigned and has a signature")
        checks = dict.fromkeys(("verify_exp", "verify_iat", "verify_nbf"), True)
        return self._decoded(token, "", {"verify_signature": False, **checks})

    def _signed(self, token: str, header: dict[str, Any]) -> Token:
        _require_signature(header)
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
        if claimed == ISSUER and self._own_keys:
            return Token(self._of_access_key(token, header, self._own_keys), TokenKind.ACCESS_KEY)
        issuer = self.issuers.get(claimed) if isinstance(claimed, str) else None
        return Token(self._of_issuer(token, header, issuer, audience=self._settings.audience), TokenKind.OIDC)

    def _of_issuer(
        self, token: str, header: dict[str, Any], issuer: Issuer | None, *, audience: str
    ) -> Claims:
        _require_signature(header)
        if issuer is None:
            raise _invalid("its issuer is not trusted")
        kid = header.get("kid")
        # Only the issuer's own keys: a key of one issuer must not sign tokens of another.
        key = issuer.key(kid) if isinstance(kid, str) else None
        if key is None:
            raise _invalid("its signing key is unknown")
        return self._decoded(token, key, {}, audience=audience, issuer=issuer.url)

    def _of_access_key(self, token: str, header: dict[str, Any], keys: SigningKeys) -> Claims:
        claims = keys.claims(token, header.get("kid"), leeway_s=self._settings.token_leeway_seconds)
        if claims is None:
            raise _invalid("its signing key is unknown")
        return claims

    def _decoded(self, token: str, key: Any, options: dict[str, Any], **expected: str) -> Claims:
        required = ["exp", "iat", self._settings.oidc_subject_claim]
        claims: Claims = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            leeway=self._settings.token_leeway_seconds,
            options={"require": required, **options},  # type: ignore[arg-type]  # a merged dict is no TypedDict
            **expected,  # type: ignore[arg-type]  # as above
        )
        return claims


@contextmanager
def _refusing_malformed(token: str) -> Iterator[None]:
    """Whatever PyJWT raises about the token becomes Unauthorized with the reason; so is one that is too long."""
    if len(token) > MAX_CHARS:
        raise _invalid(f"it is longer than {MAX_CHARS} characters")
    try:
        yield
    except jwt.MissingRequiredClaimError as error:
        raise _invalid(f"it has no claim '{error.claim}'") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise _invalid(_REASONS.get(type(error), "it is malformed")) from None  # type: ignore[arg-type]  # any class


def _require_signature(header: dict[str, Any]) -> None:
    if header.get("alg") not in ALGORITHMS:
        raise _invalid(f"its algorithm is none of {', '.join(ALGORITHMS)}")


def _invalid(reason: str) -> Unauthorized:
    return Unauthorized(f"Invalid or expired token: {reason}")
