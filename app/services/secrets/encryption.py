"""Encryption of the values of secrets, by the keys of WORKSPACES_SECRETS_KEY_FILE."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from uuid import UUID

# It is what PyJWT[crypto] of pyproject.toml asks for. Named there by itself, it cannot be locked: uv splits by PyPy.
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.config import Settings
from app.config.keys import read_keys
from app.errors import SecretsDisabled, SecretUnreadable
from app.logs import get_logger

log = get_logger(__name__)

_NONCE_BYTES = 12

PLATFORM = UUID(int=0)
"""In the place of the workspace of a secret that belongs to none: no workspace has this id."""


@dataclass(frozen=True)
class Sealed:
    """An encrypted value, and the id of the key that has encrypted it."""

    key_id: str
    ciphertext: bytes


class Keyring:
    """The keys of the key file: the first encrypts, all decrypt."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {_id_of(key): AESGCM(key) for key in keys}
        self.first, *self.others = self._ciphers
        """Their ids, which are in the rows and tell nothing of the keys."""

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """The keys that are in the file now: no process has to be restarted for another one. Raises SecretsDisabled."""
        if not settings.secrets_key_file:
            raise SecretsDisabled(
                "There is no key to encrypt secrets with: the operator of this server has to set "
                "WORKSPACES_SECRETS_KEY_FILE."
            )
        try:
            return cls(read_keys(settings.secrets_key_file))
        except ValueError as error:
            reason = str(error)
        log.error("secrets.keys_unusable", reason=reason)
        raise SecretsDisabled(
            "The keys that encrypt secrets cannot be used: the operator of this server has to mend the file of "
            "WORKSPACES_SECRETS_KEY_FILE, as its log says."
        )

    def seal(self, value: str, *, workspace_id: UUID, secret_id: UUID) -> Sealed:
        """The value, encrypted by the first key for the row of that id in that workspace."""
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = self._ciphers[self.first].encrypt(nonce, value.encode(), _row(workspace_id, secret_id))
        return Sealed(self.first, nonce + ciphertext)

    def open(self, sealed: Sealed, *, workspace_id: UUID, secret_id: UUID, name: str) -> str:
        """The value that was sealed for that row. Raises SecretUnreadable, whose message has `name`."""
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise SecretUnreadable(
                f"Secret '{name}' is encrypted by the key {sealed.key_id}, which is not in the file of "
                "WORKSPACES_SECRETS_KEY_FILE: the operator of this server puts it back behind the first, "
                "or the secret gets a value anew."
            )
        nonce, ciphertext = sealed.ciphertext[:_NONCE_BYTES], sealed.ciphertext[_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, ciphertext, _row(workspace_id, secret_id)).decode()
        except (InvalidTag, ValueError):  # ValueError: too short to be one
            pass
        log.error("secret.unreadable", secret_id=str(secret_id), key_id=sealed.key_id)
        raise SecretUnreadable(
            f"Secret '{name}' cannot be decrypted: its row is not as it was written. Give it a value anew."
        )


def _id_of(key: bytes) -> str:
    # Of 32 random bytes a hash tells nothing.
    return hashlib.sha256(b"workspaces secrets " + key).hexdigest()[:16]


def _row(workspace_id: UUID, secret_id: UUID) -> bytes:
    """What is authenticated with a value: copied to another row, it does not decrypt."""
    return b"secret" + workspace_id.bytes + secret_id.bytes
