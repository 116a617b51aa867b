"""An upload to a bucket, part by part."""

import errno
from contextlib import suppress
from math import ceil
from typing import Any, Protocol

_PART_BYTES = 8 * 1024 * 1024
_MAX_PART_BYTES = 64 * 1024 * 1024
"""What an upload may take of the server's memory, twice while it is sent: whatever is announced, everybody may."""
_MAX_PARTS = 9900
"""Of one upload; S3 allows 10 000. So what does not say how large it will be may have 77 GiB, anything else 618."""

Upload = dict[str, Any]
"""A multipart upload as S3 tells of it; `Key` and `UploadId` name it."""


class Uploads(Protocol):
    """The requests of a multipart upload: ObjectTree, which says what each does."""

    def begin_upload(self, key: str) -> Upload: ...
    def send_part(self, upload: Upload, number: int, content: bytes) -> dict[str, Any]: ...
    def complete(self, upload: Upload, parts: list[dict[str, Any]]) -> None: ...
    def abort(self, upload: Upload) -> None: ...
    def refuse_conflict(self, key: str, within: str) -> None: ...


class ObjectDraft:
    """An upload that is invisible until it is complete. As FileDraft promises.

    It is made known to the bucket before the first byte has come: whoever removes all drafts finds it, and ends it.
    """

    def __init__(self, tree: Uploads, key: str, within: str, size: int | None) -> None:
        self._tree, self._key, self._within = tree, key, within
        # Of one size, and chosen at once: parts that grew with the file would take memory that nobody planned for.
        self._part_bytes = max(_PART_BYTES, ceil((size or 0) / _MAX_PARTS))
        if self._part_bytes > _MAX_PART_BYTES:
            raise OSError(errno.EFBIG, "a file may have 618 GiB in an object store")
        self._upload = tree.begin_upload(key)
        self._parts: list[dict[str, Any]] = []
        self._part = bytearray()
        self._is_published = False

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            room = self._part_bytes - len(self._part)
            self._part += rest[:room]
            rest = rest[room:]
            if len(self._part) == self._part_bytes:
                self._send()

    def finish(self) -> None:
        if self._part or not self._parts:
            self._send()  # An empty file is one empty part.
        # Not in publish: that is called with the fileset locked, which is to be for one request only.
        self._tree.refuse_conflict(self._key, self._within)

    def publish(self) -> None:
        self._tree.complete(self._upload, self._parts)
        self._is_published = True

    def discard(self) -> None:
        if self._is_published:
            return  # There is nothing to abort any more.
        with suppress(OSError):
            self._tree.abort(self._upload)

    def _send(self) -> None:
        if len(self._parts) == _MAX_PARTS:
            raise OSError(errno.EFBIG, "a file whose size was not announced is too large for an object store")
        content, self._part = bytes(self._part), bytearray()
        self._parts.append(self._tree.send_part(self._upload, len(self._parts) + 1, content))
