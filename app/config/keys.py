"""The file with the keys that encrypt secrets."""

import base64
import binascii
import os
import stat

KEY_BYTES = 32
_LONGEST_FILE = 64 * 1024


def read_keys(file: str) -> tuple[bytes, ...]:
    """The keys in `file`, one a line as base64, apart from empty lines and comments. Raises ValueError with the remedy.

    Nobody but its owner may read it, or it belongs to root and its group may: so Kubernetes mounts a Secret.
    """
    try:
        # One that is no file must not be waited for.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            _require_private(file, os.fstat(opened.fileno()))
            lines = opened.read(_LONGEST_FILE).splitlines()
    except OSError as error:
        raise ValueError(f"'{file}' cannot be read: {error.strerror}") from None
    keys = [
        _key(file, number, line.strip())
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith(b"#")
    ]
    if not keys:
        raise ValueError(f"'{file}' has no key: write one into it, as `openssl rand -base64 32` makes them")
    return tuple(keys)


def _require_private(file: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"'{file}' is no file")
    of_others = 0o037 if found.st_uid == 0 else 0o077
    if found.st_mode & of_others:
        mode = stat.S_IMODE(found.st_mode)
        raise ValueError(f"others may read or write '{file}' (mode {mode:04o}): chmod 600 it")


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
