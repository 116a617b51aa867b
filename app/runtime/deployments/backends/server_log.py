"""The log of a server: its latest output, in files of bounded size."""

import contextlib
import os
from pathlib import Path

LOG_BYTES = 1024 * 1024
"""Limit of `server.log`; the file before it, `server.log.1`, takes as much again."""


class ServerLog:
    """The latest output, in a file and its predecessor. If the disk fails, output is lost and nothing else happens.

    The server can replace the files by anything: links are not followed, and pipes are not waited for.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._before = path, path.with_name(f"{path.name}.1")

    def append(self, line: bytes) -> None:
        """Append a line; the oldest output makes room for it."""
        with contextlib.suppress(OSError):
            with open(self._path, "ab", buffering=0, opener=_open_safely) as file:
                size = file.tell()
                file.write(line)
            if size + len(line) > LOG_BYTES:
                self._path.replace(self._before)


def _open_safely(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
