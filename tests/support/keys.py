"""The keys by which tests encrypt secrets."""

import base64
from pathlib import Path

KEY, OTHER_KEY = bytes(range(32)), bytes(range(100, 132))


def write_keys(file: Path, *keys: bytes) -> str:
    """Make `file` the key file with these keys; its path."""
    file.touch(mode=0o600)
    file.write_bytes(b"".join(base64.b64encode(key) + b"\n" for key in keys))
    return str(file)
