"""Passwords and keys that the stack makes for itself, in files that only their owner can read."""

import base64
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def kept_password(file: Path) -> str:
    """The password in `file`, the same after each restart; made with its directory if it is missing."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not file.exists():
        write_private(file, secrets.token_urlsafe(24))
    return file.read_text()


def kept_key_file(file: Path) -> str:
    """The path of `file`, with a key for secrets or for the cookies of the console; made if it is missing."""
    if not file.exists():
        write_private(file, base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    return str(file)


def kept_signing_key(file: Path) -> Path:
    """The file, with the private key in it that was there before; made if it is missing."""
    if not file.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(file, pem.decode())
    return file


def write_private(file: Path, text: str) -> None:
    """Replace the content of `file` at once; its owner alone may read it."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.rename(file)
