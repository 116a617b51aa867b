"""A staged upload on a filesystem."""

import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class StagedFile:
    """A file that is written where no reader looks for it, until it is published under its key."""

    def __init__(self, file: Any, *, move_to_key: Callable[[], None], remove: Callable[[], None]) -> None:
        self._file, self._move_to_key, self._remove = file, move_to_key, remove

    def write(self, chunk: bytes) -> None:
        """Append `chunk`. May raise FileNotFoundError if the upload was collected."""
        self._file.write(chunk)

    def finish(self) -> None:
        """Make the written bytes durable. Raises as `publish` does, where the conflict is known already."""
        # Without fsync a power cut could leave the name of a file without its bytes.
        with suppress(AttributeError, io.UnsupportedOperation):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def publish(self) -> None:
        """Make the file visible under its key atomically; it replaces an older file.

        Raises IsADirectoryError or NotADirectoryError where a file and a directory would share a key,
        FileNotFoundError if the upload was collected meanwhile.
        """
        self._move_to_key()

    def discard(self) -> None:
        """Remove the upload unless it was published. Never fails: `collect_staged_uploads` removes the rest."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._remove()
