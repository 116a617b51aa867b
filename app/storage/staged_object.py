"""A staged upload to a bucket, part by part."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import ceil
from typing import Any

from app.storage.bucket import Bucket

_PART_BYTES = 8 * 1024 * 1024
_MAX_PART_BYTES = 64 * 1024 * 1024
"""Limits the memory of one upload, which holds two parts while it sends: any caller may announce any size."""
_MAX_PARTS = 9900
"""Parts of one upload; S3 allows 10 000. An upload of unknown size may have 77 GiB, any other 618 GiB."""


class StagedObject:
    """A multipart upload, which is invisible until it is complete. Its methods promise what StagedFile's do.

    The bucket knows it before the first byte arrives, so a purge of all staged uploads finds and ends it.
    """

    def __init__(
        self, bucket: Bucket, key: str, size: int | None, *, refuse_conflict: Callable[[], None]
    ) -> None:
        self._bucket, self._refuse_conflict = bucket, refuse_conflict
        # All parts have one size, chosen now: parts that grew with the file would take unplanned memory.
        self._part_bytes = max(_PART_BYTES, ceil((size or 0) / _MAX_PARTS))
        if self._part_bytes > _MAX_PART_BYTES:
            raise OSError(errno.EFBIG, "a file in an object store may have at most 618 GiB")
        self._upload = bucket.begin_upload(key)
        self._parts: list[dict[str, Any]] = []
        self._part = bytearray()
        self._is_published = self._is_silent = False

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
        # Not in `publish`: that runs while the fileset is locked, which allows time for one request only.
        with self._noting_silence():
            self._refuse_conflict()

    def publish(self) -> None:
        with self._noting_silence():
            self._bucket.complete(self._upload, self._parts)
        self._is_published = True

    def discard(self) -> None:
        if self._is_published:
            return  # There is nothing left to abort.
        if self._is_silent:
            return  # One who has waited for it waits no longer: a job would lose its lease. The orphan scan aborts it.
        with suppress(OSError):
            self._bucket.abort(self._upload)

    def _send(self) -> None:
        if len(self._parts) == _MAX_PARTS:
            raise OSError(errno.EFBIG, "a file whose size was not announced is too large for an object store")
        content, self._part = bytes(self._part), bytearray()
        with self._noting_silence():
            self._parts.append(self._bucket.send_part(self._upload, len(self._parts) + 1, content))

    @contextmanager
    def _noting_silence(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            self._is_silent = True
            raise
