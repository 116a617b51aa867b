"""The file with the keys that encrypt secrets."""

import base64
import binascii

from app.config.private_file import read_private_file

KEY_BYTES = 32


def read_keys(file: str) -> tuple[bytes, ...]:
    """The keys in `file`, one a line as base64, apart from empty lines and comments. Raises ValueError with the remedy.

    Others must not be able to read it (`read_private_file`).
    """
    lines = read_private_file(file).splitlines()
    keys = [
        _key(file, number, line.strip())
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith(b"#")
    ]
    if not keys:
        raise ValueError(f"'{file}' has no key: write one into it, as `openssl rand -base64 32` makes them")
    return tuple(keys)


def _key(file: str, number: int, line: bytes) -> bytes:
    try:
        key = base64.b64decode(line, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"line {number} of '{file}' is no key: it must be {KEY_BYTES} bytes as base64, "
            "as `openssl rand -base64 32` makes them"
        )
    return key
