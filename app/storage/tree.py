"""The interface between the blob store and its media: a tree of files, and uploads into it."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from app.errors import Busy, DomainError, StorageFull

Removed = Any
"""An entry that a tree has removed, in the tree's own representation."""


class StoreMisconfigured(OSError):
    """The store cannot work with its present configuration; a person has to change it."""


class StoreAbsent(OSError):
    """The store is not there, or is not the one of this installation. It may come back: nothing in it is known."""


def told_to_clients(error: OSError) -> DomainError:
    """An error of the store as a client may read it: without paths, buckets and hosts of the server."""
    if isinstance(error, StoreAbsent):
        return Busy(
            "The storage is not there, or is not that of this installation; its operator has to look."
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("The storage has no space left; delete files, or ask its operator for more.")
    if isinstance(error, StoreMisconfigured | PermissionError):
        why = "it cannot be used as it is configured, and its operator has to look"
        return Busy(f"The storage failed ({type(error).__name__}): {why}.")
    return Busy(f"The storage failed ({type(error).__name__}); try again.")


@dataclass(frozen=True)
class Found:
    """A file or a directory of a tree."""

    key: str
    size: int
    is_file: bool


class StagedUpload(Protocol):
    """An upload that no reader sees yet; StagedFile documents each method."""

    def write(self, chunk: bytes) -> None: ...
    def finish(self) -> None: ...
    def publish(self) -> None: ...
    def discard(self) -> None: ...


class Tree(Protocol):
    """The files of a store: FileTree, which documents each method, or ObjectTree."""

    @property
    def chunk_bytes(self) -> int: ...
    @property
    def trusted_s(self) -> float: ...

    def children(self, top: str = "") -> list[Found]: ...
    def files(self, top: str) -> Iterator[Found]: ...
    def tops(self) -> set[str]: ...
    def file_size(self, key: str) -> int: ...
    def open_file(self, key: str) -> Any: ...
    def read_start(self, key: str, size: int) -> bytes: ...
    def etag(self, file: Any) -> str: ...
    def stage(self, key: str, *, within: str, size: int | None = None) -> StagedUpload: ...
    def restrict(self) -> None: ...
    def remove_file(self, key: str) -> None: ...
    def remove_all(self, top: str) -> Iterator[Removed | OSError]: ...
    def is_displaced(self, top: str) -> bool: ...
    def remove_displaced(self, top: str) -> str | None: ...
    def sync(self, top: str) -> None: ...
    def is_there(self, removed: Removed) -> bool: ...
    def remains(self, top: str) -> str | None: ...
    def prune(self, top: str) -> None: ...
    def remove_staged_uploads(self, top: str) -> Iterator[Removed | OSError]: ...
    def with_staged_uploads(self, top: str) -> set[str]: ...
    def collect_staged_uploads(self, older_than: datetime) -> Iterator[Removed | OSError]: ...


def write_file(tree: Tree, key: str, content: bytes) -> None:
    """Store one small file, durably and at once; it replaces an older one. Raises the errors of the tree."""
    staged = tree.stage(key, within="")
    try:
        staged.write(content)
        staged.finish()
        staged.publish()
    except BaseException:
        staged.discard()
        raise
