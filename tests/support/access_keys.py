"""Access keys in tests: a file that signs them, made once in each process."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.issuer import Key, rsa_key


def pem_of(key: Key) -> str:
    """The private key as a file has it."""
    pem: bytes = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


def write_signing_file(file: Path, *keys: Key, mode: int = 0o600) -> Path:
    """A file with these keys, in their order."""
    file.write_text("".join(pem_of(key) for key in keys))
    file.chmod(mode)
    return file


@pytest.fixture(scope="session")
def signing_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a file with a key that signs access keys."""
    file = write_signing_file(tmp_path_factory.mktemp("keys") / "signing.pem", rsa_key("signing"))
    return os.fspath(file)
