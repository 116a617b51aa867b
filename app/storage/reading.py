"""Reading a stored file."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID


class Reading(Iterator[bytes]):
    """The bytes of a stored file, in chunks.

    The file is open from the start, so an upload that replaces it meanwhile cannot mix into the bytes: they are
    those of the old file, or end in an OSError.
    """

    def __init__(self, file: Any, chunk_bytes: int, etag: str = "", *, workspace_id: UUID) -> None:
        self._file, self._chunk_bytes = file, chunk_bytes
        self.workspace_id = workspace_id
        self.etag = etag
        """A token that differs for every content of the path; empty if the store offers none."""
        self._fetched = b""
        self.size: int = file.size
        self._left = self.size

    def limit(self, start: int, stop: int) -> None:
        """Read only from byte `start` up to, not including, `stop`."""
        self._file.seek(start)
        self._left = min(self.size, stop) - start

    def begin(self) -> None:
        """Fetch the first chunk now, so that a failing store is noticed before the response starts.

        Closes the file if that fails.
        """
        try:
            self._fetched = self._fetch()
        except OSError:
            self.close()
            raise

    def __next__(self) -> bytes:
        chunk, self._fetched = self._fetched or self._fetch(), b""
        if not chunk:
            self.close()
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Close the file, also if it was not read to its end."""
        self._left, self._fetched = 0, b""
        self._file.close()

    def _fetch(self) -> bytes:
        if self._left <= 0:
            return b""
        chunk: bytes = self._file.read(min(self._chunk_bytes, self._left))
        self._left -= len(chunk)
        return chunk
