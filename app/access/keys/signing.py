"""The tokens of access keys: JWTs that this product signs, and everybody can verify by `/apis/auth/jwks`."""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import RSAAlgorithm

from app.config import Settings
from app.config.private_file import read_private_file

ISSUER = "workspaces"
"""The claim `iss` of our own tokens. Other issuers are URLs, so none of them can have this name."""
AUDIENCE = "workspaces-access-key"
ALGORITHM = "RS256"
MIN_KEY_BITS = 2048

_PEM = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)

Claims = dict[str, Any]


class UnusableSigningFile(Exception):
    """The file of signing keys cannot be used; the message says why, and what to do."""


@dataclass(frozen=True)
class SigningKeys:
    """The private keys of the settings, by their ids. The first one signs; the others still verify what they signed."""

    by_id: dict[str, RSAPrivateKey]

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Those in the file that the settings name; None without one. Raises UnusableSigningFile."""
        file = settings.access_key_signing_file
        return cls({_id_of(key): key for key in _keys_in(file)}) if file else None

    def sign(
        self, jti: str, principal: str, email: str, *, issued_at: datetime, expires_at: datetime | None
    ) -> str:
        """The token of an access key. Nobody can make it a second time but who has the file."""
        claims: Claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": principal, "jti": jti, "iat": issued_at}
        claims |= {"email": email} if email else {}
        claims |= {"exp": expires_at} if expires_at else {}
        kid, key = next(iter(self.by_id.items()))
        return jwt.encode(claims, key, ALGORITHM, headers={"kid": kid})

    def claims(self, token: str, kid: Any, *, leeway_s: float) -> Claims | None:
        """What a token says that one of these keys has signed; None if no key has that id. Raises PyJWTError."""
        key = self.by_id.get(kid) if isinstance(kid, str) else None
        if key is None:
            return None
        claims: Claims = jwt.decode(
            token,
            key.public_key(),
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            leeway=leeway_s,
            options={"require": ["iat", "sub", "jti"]},
        )
        return claims

    def published(self) -> list[dict[str, Any]]:
        """The public keys as a JWKS has them."""
        return [{**_jwk(key), "kid": kid, "use": "sig", "alg": ALGORITHM} for kid, key in self.by_id.items()]


def signing_file_error(settings: Settings) -> str | None:
    """One line that says why the file of signing keys cannot be used. None if it can, or the settings name none."""
    try:
        SigningKeys.of(settings)
    except UnusableSigningFile as error:
        return f"WORKSPACES_ACCESS_KEY_SIGNING_FILE: {error}"
    return None


def _keys_in(file: str) -> Sequence[RSAPrivateKey]:
    try:
        content = read_private_file(file)
    except ValueError as error:
        raise UnusableSigningFile(f"{file} cannot be used: {error}") from None
    keys = [_loaded(file, pem) for pem in _PEM.findall(content)]
    if not keys:
        raise UnusableSigningFile(
            f"{file} has no private key in PEM: make one with `openssl genrsa -out FILE {MIN_KEY_BITS}`"
        )
    return keys


def _loaded(file: str, pem: bytes) -> RSAPrivateKey:
    try:
        key = _parsed(pem)
    except (ValueError, TypeError):
        raise UnusableSigningFile(f"{file} has a private key that is damaged or has a password") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_KEY_BITS:
        raise UnusableSigningFile(f"{file} must have RSA keys alone, of {MIN_KEY_BITS} bits or more")
    return key


# To check that a key is sound takes 35 ms, and each process reads its file twice: before it starts, and to use it.
@lru_cache(maxsize=8)
def _parsed(pem: bytes) -> Any:
    return load_pem_private_key(pem, password=None)


def _jwk(key: RSAPrivateKey) -> dict[str, str]:
    public = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
    return {name: public[name] for name in ("e", "kty", "n")}


def _id_of(key: RSAPrivateKey) -> str:
    """The thumbprint of RFC 7638: the same in each process, and after each restart."""
    canonical = json.dumps(_jwk(key), separators=(",", ":"), sort_keys=True)
    return urlsafe_b64encode(sha256(canonical.encode()).digest()).decode().rstrip("=")
