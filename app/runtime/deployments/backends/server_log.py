"""What a server prints, kept where whoever looks after it can read it."""

import contextlib
import os
from pathlib import Path

LOG_BYTES = 1024 * 1024
"""Of what a server prints, in its directory; as much again of what came before."""


class ServerLog:
    """What came last, in a file and the one before it. A disk that fails loses it, and nothing else.

    The server can put anything in their place: what is no file of its directory is not written to, nor waited for.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._before = path, path.with_name(f"{path.name}.1")

    def append(self, line: bytes) -> None:
        """Add it, in the place of the oldest."""
        with contextlib.suppress(OSError):
            with open(self._path, "ab", buffering=0, opener=_open_at_once) as file:
                size = file.tell()
                file.write(line)
            if size + len(line) > LOG_BYTES:
                self._path.replace(self._before)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
