"""The blob store: the bytes of filesets, under the ids of their workspace and fileset.

files/<workspace id>/<fileset id>/<path>      what users see
staging/<workspace id>/<upload id>            uploads on their way
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from uuid import UUID

import fsspec
from uuid_utils.compat import uuid7

from app.filetree import FileTree

_CHUNK = 1024 * 1024

P = ParamSpec("P")
R = TypeVar("R")


class BytesRemain(Exception):
    """Bytes are left where none may be."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a fileset: its path within the fileset and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class Staged:
    """An upload that has arrived whole and is not visible yet."""

    key: str
    size: int


class Reading(Iterator[bytes]):
    """The bytes of a stored file, in chunks.

    Held open from the start, so that an upload that replaces the file meanwhile cannot mix into it.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.size: int = file.size
        self._left = self.size

    def limit(self, start: int, stop: int) -> None:
        """Read only from byte `start` up to, not including, `stop`."""
        self._file.seek(start)
        self._left = min(self.size, stop) - start

    def __next__(self) -> bytes:
        chunk: bytes = self._file.read(min(_CHUNK, self._left)) if self._left > 0 else b""
        if not chunk:
            self.close()
            raise StopIteration
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        """Let go of the file; also when not everything was read."""
        self._left = 0
        self._file.close()


def _naming_relative_paths(
    method: Callable[Concatenate["BlobStore", P], R],
) -> Callable[Concatenate["BlobStore", P], R]:
    """Let OSErrors out of `method` name paths below the workspace: users and operators read them."""

    @wraps(method)
    def guarded(self: "BlobStore", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except OSError as error:
            # Changed in place: whoever decides between retry and giving up goes by the class.
            error.args = tuple(self.relative(value) for value in error.args)
            if error.filename is not None:  # Even None, once set, would change how the error reads.
                error.filename = self.relative(error.filename)
            if error.filename2 is not None:
                error.filename2 = self.relative(error.filename2)
            raise

    return guarded


class BlobStore:
    """Bytes by workspace, fileset and path, on any fsspec filesystem.

    Paths are trusted here: the door has refused those that are absolute or climb out. Failures of the
    filesystem pass through as the OSErrors they are; the paths they name start below the workspace.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        self._tree = FileTree(filesystem)
        self._root = root.rstrip("/")
        self._hidden = re.compile(re.escape(self._root) + r"/((files|staging)/[0-9a-f-]{36}/)?")

    @classmethod
    def open(cls, url: str) -> Self:
        """The store at an fsspec URL such as `file:///var/lib/workspaces/blobs`."""
        # No listings cache: what another process wrote must be seen, or a purge would leave it behind.
        filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        return cls(filesystem, root)

    def relative(self, value: Any) -> Any:
        """`value`, if it is text, with every path in it cut to what lies below its workspace."""
        return self._hidden.sub("", value) if isinstance(value, str) else value

    @_naming_relative_paths
    def stage(self, workspace_id: UUID, chunks: Iterable[bytes]) -> Staged:
        """Receive an upload, in constant memory. Nothing of it stays when `chunks` or the store fails."""
        key = f"{self._staging(workspace_id)}/{uuid7()}"
        try:
            return Staged(key, self._tree.write_file(key, chunks))
        except BaseException:
            self.discard(Staged(key, 0))
            raise

    @_naming_relative_paths
    def publish(self, staged: Staged, workspace_id: UUID, fileset_id: UUID, path: str) -> StoredFile:
        """Put an upload in its place at once, instead of whatever file was there.

        Raises IsADirectoryError or NotADirectoryError where a file and a directory would share a path,
        FileNotFoundError when the upload was collected meanwhile.
        """
        target = self._key(workspace_id, fileset_id, path)
        try:
            self._tree.move_file(staged.key, target, within=self._key(workspace_id, fileset_id))
        except OSError:
            # The workspace may be gone for good: the directories made for the file must not outlive it.
            self._prune_files(target)
            raise
        return StoredFile(path, staged.size)

    def discard(self, staged: Staged) -> None:
        """Drop an upload that was not published; no harm if it was."""
        # Never in the way of the error that led here: what it fails to remove, `collect_staging` does.
        with suppress(OSError):
            self._tree.remove_file(staged.key)
        self._tree.prune(posixpath.dirname(staged.key), below=f"{self._root}/staging")

    @_naming_relative_paths
    def collect_staging(self, older_than: datetime) -> int:
        """Remove the uploads that nobody has written to since then; how many."""
        collected = 0
        for directory in self._tree.children(f"{self._root}/staging"):
            for upload in self._tree.children(directory["name"]):
                with suppress(FileNotFoundError):  # Published or discarded meanwhile.
                    if self._tree.modified_at(upload["name"]) < older_than:
                        self._tree.remove_file(upload["name"])
                        collected += 1
            self._tree.prune(directory["name"], below=f"{self._root}/staging")
        return collected

    @_naming_relative_paths
    def files(self, workspace_id: UUID, fileset_id: UUID, path: str = "") -> list[StoredFile]:
        """Every file of a fileset, or those at and below `path`, in the order of their paths."""
        found = []
        if path:
            with suppress(FileNotFoundError):
                found.append(self.stat(workspace_id, fileset_id, path))
        fileset = self._key(workspace_id, fileset_id)
        for entry in self._tree.walk(f"{fileset}/{path}" if path else fileset):
            if entry["type"] == "file":
                found.append(StoredFile(entry["name"].removeprefix(f"{fileset}/"), entry["size"]))
        return sorted(found, key=lambda file: file.path)

    @_naming_relative_paths
    def stat(self, workspace_id: UUID, fileset_id: UUID, path: str) -> StoredFile:
        """The file at `path`. Raises FileNotFoundError, also for a directory."""
        return StoredFile(path, self._tree.file_size(self._key(workspace_id, fileset_id, path)))

    @_naming_relative_paths
    def read(self, workspace_id: UUID, fileset_id: UUID, path: str) -> Reading:
        """The bytes of the file at `path`. Raises FileNotFoundError, also for a directory."""
        return Reading(self._tree.open_file(self._key(workspace_id, fileset_id, path)))

    @_naming_relative_paths
    def remove(self, workspace_id: UUID, fileset_id: UUID, path: str) -> StoredFile:
        """Delete one file, and the directories that are empty without it. Raises FileNotFoundError."""
        file = self.stat(workspace_id, fileset_id, path)
        key = self._key(workspace_id, fileset_id, path)
        self._tree.remove_file(key)
        self._prune_files(key)
        return file

    @_naming_relative_paths
    def purge_fileset(self, workspace_id: UUID, fileset_id: UUID) -> None:
        """Delete all bytes of a fileset and see that none is left; success if there were none.

        A file that refuses does not protect those after it: its error is raised at the end.
        Raises BytesRemain when the store reported success and was wrong.
        """
        self._purge(self._key(workspace_id, fileset_id))

    @_naming_relative_paths
    def purge_workspace(self, workspace_id: UUID, *, keep: Set[UUID] = frozenset()) -> None:
        """Remove what is left when all filesets of a workspace are purged: uploads on their way, directories.

        The filesets in `keep` stay as they are. Raises BytesRemain if any other has bytes: nobody purged
        them, so something is wrong that a person must see.
        """
        # Uploads first: whichever was about to be published finds nothing to publish after this.
        self._purge(self._staging(workspace_id))
        kept = {self._key(workspace_id, fileset_id) for fileset_id in keep}
        for entry in self._tree.children(self._files(workspace_id)):
            if entry["name"] in kept:
                continue
            if any(each["type"] != "directory" for each in (entry, *self._tree.walk(entry["name"]))):
                raise BytesRemain(f"{self.relative(entry['name'])} holds bytes of a fileset that is unknown")
            self._purge(entry["name"])
        self._tree.prune(self._files(workspace_id), below=f"{self._root}/files")

    @_naming_relative_paths
    def size(self, workspace_id: UUID) -> int:
        """Bytes in all filesets of a workspace."""
        entries = self._tree.walk(self._files(workspace_id))
        return sum(entry["size"] for entry in entries if entry["type"] == "file")

    @_naming_relative_paths
    def workspace_ids(self) -> set[UUID]:
        """The workspaces that have anything here, be it an empty directory."""
        ids = set()
        for part in ("files", "staging"):
            for entry in self._tree.children(f"{self._root}/{part}"):
                with suppress(ValueError):  # `lost+found` and the like.
                    ids.add(UUID(posixpath.basename(entry["name"])))
        return ids

    def _purge(self, top: str) -> None:
        self._tree.remove_all(top)
        if left := self._tree.children(top):
            raise BytesRemain(f"{self.relative(left[0]['name'])} is still there after it was deleted")

    def _prune_files(self, key: str) -> None:
        self._tree.prune(posixpath.dirname(key), below=f"{self._root}/files")

    def _key(self, workspace_id: UUID, fileset_id: UUID, path: str = "") -> str:
        fileset = f"{self._files(workspace_id)}/{fileset_id}"
        return f"{fileset}/{path}" if path else fileset

    def _files(self, workspace_id: UUID) -> str:
        return f"{self._root}/files/{workspace_id}"

    def _staging(self, workspace_id: UUID) -> str:
        return f"{self._root}/staging/{workspace_id}"
