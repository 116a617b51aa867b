"""The blob store: the bytes of filesets, under the ids of their workspace and fileset.

A key of its tree is <workspace id>/<fileset id>/<path>.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from math import inf
from time import monotonic
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import fsspec

from app.storage.filetree import FileTree
from app.storage.reading import Reading
from app.storage.tree import Draft, Removed, Tree

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

    draft: Draft
    path: str
    size: int


@dataclass(frozen=True)
class Unfinished:
    """A purge whose time was over: `removed` files, drafts and directories went, and more may be left."""

    removed: int


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
    """Bytes by workspace, fileset and path: on a disk, in a bucket, or on whatever else fsspec knows.

    Paths are trusted here: the door has refused those that are absolute or climb out. Failures of the store
    pass through as the OSErrors they are; the paths they name start below the workspace.
    """

    def __init__(self, filesystem: Any, root: str, *, kind: Callable[[Any, str], Tree] = FileTree) -> None:
        root = root.rstrip("/")
        self._tree = kind(filesystem, root)
        self._hidden = re.compile(re.escape(root) + r"/((files|staging)/[0-9a-f-]{36}/)?")

    @classmethod
    def open(cls, url: str) -> Self:
        """The store at an fsspec URL such as `file:///var/lib/workspaces/blobs` or `s3://bucket/prefix`.

        Contacts nothing. Raises ImportError, which says what to install, where the URL needs what is missing,
        and ValueError for an S3 URL with credentials: s3fs would take them for a part of the bucket's name.
        """
        if url.startswith(("s3://", "s3a://")) and "@" in urlsplit(url).netloc:
            raise ValueError(
                "Credentials do not belong into WORKSPACES_STORAGE_URL; set AWS_ACCESS_KEY_ID and others"
            )
        # No listings cache: what another process wrote must be seen, or a purge would leave it behind.
        filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        if "s3" not in filesystem.protocol:
            return cls(filesystem, root)
        from app.storage.objecttree import ObjectTree  # noqa: PLC0415 -- what it needs is an extra

        return cls(filesystem, root, kind=ObjectTree)

    def relative(self, value: Any) -> Any:
        """`value`, if it is text, with every path in it cut to what lies below its workspace."""
        return self._hidden.sub("", value) if isinstance(value, str) else value

    @_naming_relative_paths
    def stage(
        self,
        workspace_id: UUID,
        fileset_id: UUID,
        path: str,
        chunks: Iterable[bytes],
        *,
        at_most: int | None = None,
    ) -> Staged:
        """Receive an upload, in constant memory. Nothing of it stays when `chunks` or the store fails.

        A purge of the fileset ends it from now on. `at_most` is how many bytes will come, as far as that is known;
        without it a store may refuse very large files with EFBIG. Raises FileNotFoundError when it was purged or
        collected meanwhile, as `publish` does.
        """
        fileset = _key(workspace_id, fileset_id)
        draft = self._tree.draft(f"{fileset}/{path}", within=fileset, size=at_most)
        size = 0
        try:
            for chunk in chunks:
                draft.write(chunk)
                size += len(chunk)
            draft.finish()
        except BaseException:
            draft.discard()
            raise
        return Staged(draft, path, size)

    @_naming_relative_paths
    def publish(self, staged: Staged) -> StoredFile:
        """Put an upload in its place at once, instead of whatever file was there.

        Raises IsADirectoryError or NotADirectoryError where a file and a directory would share a path,
        FileNotFoundError when the upload was collected meanwhile.
        """
        staged.draft.publish()
        return StoredFile(staged.path, staged.size)

    def discard(self, staged: Staged) -> None:
        """Drop an upload that was not published; no harm if it was. What it fails to drop is collected later."""
        staged.draft.discard()

    @_naming_relative_paths
    @_naming_relative_paths
    def collect_staging(self, older_than: datetime) -> int:
        """Remove the uploads that nobody has written to since then; how many.

        One that cannot be removed keeps no other from it; the first error is raised at the end.
        """
        steps = list(self._tree.collect_drafts(older_than))
        for failure in (step for step in steps if isinstance(step, OSError)):
            raise failure
        return len(steps)

    def files(self, workspace_id: UUID, fileset_id: UUID, path: str = "") -> list[StoredFile]:
        """Every file of a fileset, or those at and below `path`, in the order of their paths."""
        return list(self.each_file(workspace_id, fileset_id, path))

    def each_file(self, workspace_id: UUID, fileset_id: UUID, path: str = "") -> Iterator[StoredFile]:
        """The same one by one, for filesets with very many. Raises when it comes to what cannot be listed."""
        found = self._each_file(workspace_id, fileset_id, path)
        while file := self._next_of(found):
            yield file

    @_naming_relative_paths
    def _next_of(self, found: Iterator[StoredFile]) -> StoredFile | None:
        return next(found, None)

    def _each_file(self, workspace_id: UUID, fileset_id: UUID, path: str) -> Iterator[StoredFile]:
        if path:
            with suppress(FileNotFoundError):
                yield self.stat(workspace_id, fileset_id, path)
        fileset = _key(workspace_id, fileset_id)
        for file in self._tree.files(f"{fileset}/{path}" if path else fileset):
            yield StoredFile(file.key.removeprefix(f"{fileset}/"), file.size)

    @_naming_relative_paths
    def stat(self, workspace_id: UUID, fileset_id: UUID, path: str) -> StoredFile:
        """The file at `path`. Raises FileNotFoundError, also for a directory."""
        return StoredFile(path, self._tree.file_size(_key(workspace_id, fileset_id, path)))

    @_naming_relative_paths
    def read(self, workspace_id: UUID, fileset_id: UUID, path: str) -> Reading:
        """The bytes of the file at `path`. Raises FileNotFoundError, also for a directory."""
        file = self._tree.open_file(_key(workspace_id, fileset_id, path))
        return Reading(file, self._tree.chunk_bytes, self._tree.etag(file))

    @_naming_relative_paths
    def remove(self, workspace_id: UUID, fileset_id: UUID, path: str) -> StoredFile:
        """Delete one file, and the directories that are empty without it. Raises FileNotFoundError."""
        file = self.stat(workspace_id, fileset_id, path)
        self._tree.remove_file(_key(workspace_id, fileset_id, path))
        return file

    @_naming_relative_paths
    def purge_fileset(
        self, workspace_id: UUID, fileset_id: UUID, *, within_s: float = inf
    ) -> Unfinished | None:
        """Delete all bytes of a fileset and see that none is left; success, which is None, if there were none.

        Gives way `within_s` seconds after the first deletion. Unfinished is progress: it is certain that
        something went, and the next call goes on from there.
        A file that refuses does not protect those after it: its error is raised at the end, or when the time is
        over and nothing went. Raises BytesRemain when the store reported success and was wrong.
        """
        return self._purge(_key(workspace_id, fileset_id), within_s)

    @_naming_relative_paths
    def purge_workspace(self, workspace_id: UUID, *, keep: Set[UUID] = frozenset()) -> None:
        """Remove what is left when all filesets of a workspace are purged: uploads on their way, directories.

        The filesets in `keep` are not touched, nor uploads to them: the store may well refuse. Raises BytesRemain
        if any other has bytes: nobody purged them, so something is wrong that a person must see.
        """
        workspace = str(workspace_id)
        kept = {_key(workspace_id, fileset_id) for fileset_id in keep}
        # Uploads first: whichever was about to be published finds nothing to publish after this.
        for fileset in self._tree.drafted(workspace) - kept:
            self._carry_out(self._tree.remove_drafts(fileset))
        if self._tree.drafted(workspace) - kept:
            raise BytesRemain("an upload is still there after it was removed")
        for each in self._tree.children(workspace):
            if each.key in kept:
                continue
            if each.is_file or next(self._tree.files(each.key), None):
                raise BytesRemain(f"{_below_workspace(each.key)} holds bytes of a fileset that is unknown")
            self._purge(each.key)
        self._tree.prune(workspace)

    @_naming_relative_paths
    def size(self, workspace_id: UUID) -> int:
        """Bytes in all filesets of a workspace."""
        return sum(file.size for file in self._tree.files(str(workspace_id)))

    @_naming_relative_paths
    def workspace_ids(self) -> set[UUID]:
        """The workspaces that have anything here, be it an empty directory."""
        ids = set()
        for top in self._tree.tops():
            with suppress(ValueError):  # `lost+found` and the like.
                ids.add(UUID(top))
        return ids

    def _purge(self, top: str, within_s: float = inf) -> Unfinished | None:
        if unfinished := self._carry_out(self._tree.remove_all(top), within_s):
            return unfinished
        if left := self._tree.remains(top):
            raise BytesRemain(f"{_below_workspace(left)} is still there after it was deleted")
        return None

    def _carry_out(self, steps: Iterator[Removed | OSError], within_s: float = inf) -> Unfinished | None:
        """Take all `steps`, then raise the first error among them; or as many as there is time for."""
        removed, first, failure, until = 0, None, None, inf
        for step in steps:
            # Not from the start: where listing takes all the time there would never be progress.
            until = min(until, monotonic() + within_s)
            if isinstance(step, OSError):
                failure = failure or step
            else:
                removed, first = removed + 1, first or step
            if monotonic() >= until:
                break
        else:
            if failure:
                raise failure
            return None
        if failure and not removed:
            raise failure
        if self._tree.is_there(first):  # A store that lies would have us begin again for ever.
            raise BytesRemain("what was deleted first is still there")
        return Unfinished(removed)


def _key(workspace_id: UUID, fileset_id: UUID, path: str = "") -> str:
    fileset = f"{workspace_id}/{fileset_id}"
    return f"{fileset}/{path}" if path else fileset


def _below_workspace(key: str) -> str:
    return key.partition("/")[2]
