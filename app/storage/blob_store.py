"""The blob store: the bytes of filesets, under the ids of their workspace and fileset.

The keys of its tree are <workspace id>/<fileset id>/<path>.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from math import inf
from time import monotonic
from typing import Any, Protocol, Self
from urllib.parse import urlsplit
from uuid import UUID

import fsspec
from fsspec.implementations.local import LocalFileSystem

from app.logs import get_logger
from app.storage.disk import Disk
from app.storage.filetree import FileTree
from app.storage.marker import KEY, Marker, read_marker, write_marker
from app.storage.paths import can_be_asked_for, naming_relative_paths
from app.storage.purge import BytesRemain, PartialPurge, below_workspace, carry_out, purge
from app.storage.reading import Reading
from app.storage.tree import StagedUpload, Tree

log = get_logger(__name__)

_CHECK_BYTES = 65536
"""Enough that a full disk refuses them, and few enough to be written at each look at `/status`."""

_CUT_PATH = re.compile(r"(?<=['(])(?=[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}[/')])")
"""Where a path in a message begins: it has been cut to the part below the workspace."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a fileset: its path within the fileset and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class ReceivedUpload:
    """An upload that has arrived completely and is not published yet."""

    staged: StagedUpload
    path: str
    size: int


class Identity(Protocol):
    """What tells this store from others: `app.store_identity.StoreIdentity`."""

    def verify(self, store: "BlobStore", *, before_destruction: bool) -> None: ...


class BlobStore:
    """Bytes by workspace, fileset and path: on a disk, in a bucket, or on any other filesystem of fsspec.

    Paths are trusted here: `checked_path` has refused absolute ones and those with `..`. Failures of the store
    are raised as OSErrors; the paths in their messages start below the workspace. Every method that reads, stores or
    destroys raises StoreAbsent if this is not the store of the installation.
    """

    def __init__(
        self,
        filesystem: Any,
        root: str,
        *,
        kind: Callable[[Any, str], Tree] = FileTree,
        identity: Identity | None = None,
    ) -> None:
        root = root.rstrip("/")
        self._root, self._tree = root, kind(filesystem, root)
        self._identity, self._trusted_until = identity, {False: -inf, True: -inf}
        self._hidden = re.compile(re.escape(root) + r"/((files|staging)/[0-9a-f-]{36}/)?")

    @classmethod
    def open(cls, url: str, *, identity: Identity | None = None, group: str | None = None) -> Self:
        """The store at an fsspec URL such as `file:///var/lib/workspaces/blobs` or `s3://bucket/prefix`.

        `identity` tells this store from others before each use; `group` may read what is stored on a disk.
        Opens no connection. Raises ImportError, which names the package to install, if the URL needs one, and
        ValueError for an S3 URL with credentials, which s3fs would treat as a part of the bucket's name.
        """
        filesystem, root, kind = _medium(url, group)
        return cls(filesystem, root, kind=kind, identity=identity)

    def relative(self, value: Any) -> Any:
        """`value`; if it is text, every path in it is cut to the part below its workspace."""
        return self._hidden.sub("", value) if isinstance(value, str) else value

    def located(self, workspace_id: UUID, text: str) -> str:
        """`text` about a workspace with the paths in it made whole, as whoever looks into the store needs them."""
        return _CUT_PATH.sub(f"{self._root}/files/{workspace_id}/", text)

    # --- which store this is -----------------------------------------------------------------------------------

    def marker(self) -> Marker | None:
        """What the store says of itself; None if it has no marker. Raises the store's errors."""
        return read_marker(self._tree)

    def write_marker(self, marker: Marker) -> None:
        """Give the store a marker, and close it to others on this machine. Raises the store's errors."""
        write_marker(self._tree, marker)
        self._tree.restrict()

    @naming_relative_paths
    def verify(self, *, before_destruction: bool = False) -> None:
        """Raise StoreAbsent unless this is the store of the installation, and ours to destroy if that is next."""
        if self._identity and monotonic() >= self._trusted_until[before_destruction]:
            self._identity.verify(self, before_destruction=before_destruction)
            self._trusted_until[before_destruction] = monotonic() + self._tree.trusted_s

    @naming_relative_paths
    def check(self) -> None:
        """Raise the error that an upload would meet now, StoreAbsent included. Nothing of the try stays."""
        if self._identity:
            self._identity.verify(self, before_destruction=False)
        staged = self._tree.stage(f"{KEY}.check", within="")
        try:
            staged.write(bytes(_CHECK_BYTES))
            staged.finish()
        finally:
            staged.discard()

    @contextmanager
    def _verified(self) -> Iterator[None]:
        """The store is ours before the block destroys something or finds nothing, and still is when it has."""
        self.verify(before_destruction=True)
        yield
        self.verify(before_destruction=True)

    # --- uploads -----------------------------------------------------------------------------------------------

    @naming_relative_paths
    def stage(
        self,
        workspace_id: UUID,
        fileset_id: UUID,
        path: str,
        chunks: Iterable[bytes],
        *,
        at_most: int | None = None,
    ) -> ReceivedUpload:
        """Receive an upload in constant memory. Nothing of it stays if `chunks` or the store fails.

        A purge of the fileset ends the upload. `at_most` is the maximum number of bytes, if it is known; without it
        a store may refuse very large files with EFBIG. Raises FileNotFoundError, as `publish` does, if the upload
        was purged or collected meanwhile.
        """
        self.verify()
        fileset = _key(workspace_id, fileset_id)
        staged = self._tree.stage(f"{fileset}/{path}", within=fileset, size=at_most)
        size = 0
        try:
            for chunk in chunks:
                staged.write(chunk)
                size += len(chunk)
            staged.finish()
        except BaseException:
            staged.discard()
            raise
        return ReceivedUpload(staged, path, size)

    @naming_relative_paths
    def publish(self, upload: ReceivedUpload) -> StoredFile:
        """Make an upload visible atomically; it replaces an older file at its path.

        Raises IsADirectoryError or NotADirectoryError where a file and a directory would share a path,
        FileNotFoundError if the upload was purged or collected meanwhile.
        """
        upload.staged.publish()
        return StoredFile(upload.path, upload.size)

    def discard(self, upload: ReceivedUpload) -> None:
        """Remove an upload unless it was published. Never fails: the orphan scan collects what is left."""
        upload.staged.discard()

    @naming_relative_paths
    def collect_staged_uploads(self, older_than: datetime, *, within_s: float = inf) -> tuple[int, bool]:
        """Remove the uploads that were last written before `older_than`; their number, and whether they were all.

        Stops after `within_s` seconds, when it has removed one at least. An upload that cannot be removed does not
        stop the others; the first error is raised at the end.
        """
        deadline, removed, failure = monotonic() + within_s, 0, None
        with self._verified():
            for step in self._tree.collect_staged_uploads(older_than):
                if isinstance(step, OSError):
                    failure = failure or step
                else:
                    removed += 1
                if removed and monotonic() >= deadline:
                    return removed, False
        if failure:
            raise failure
        return removed, True

    # --- files -------------------------------------------------------------------------------------------------

    def files(self, workspace_id: UUID, fileset_id: UUID, path: str = "") -> list[StoredFile]:
        """Every file of a fileset, or those at and below `path`, in the order of their paths."""
        return list(self.each_file(workspace_id, fileset_id, path))

    def each_file(self, workspace_id: UUID, fileset_id: UUID, path: str = "") -> Iterator[StoredFile]:
        """The same files one by one, for very large filesets. Raises when it reaches a directory it cannot list.

        Left out is what no request can name, and so none of ours has stored: it is purged with the rest.
        """
        found = self._each_file(workspace_id, fileset_id, path)
        while file := self._next_of(found):
            yield file

    @naming_relative_paths
    def _next_of(self, found: Iterator[StoredFile]) -> StoredFile | None:
        return next(found, None)

    def _each_file(self, workspace_id: UUID, fileset_id: UUID, path: str) -> Iterator[StoredFile]:
        if path:
            with suppress(FileNotFoundError):
                yield self.stat(workspace_id, fileset_id, path)
        self.verify()
        fileset = _key(workspace_id, fileset_id)
        for file in self._tree.files(f"{fileset}/{path}" if path else fileset):
            found = file.key.removeprefix(f"{fileset}/")
            if can_be_asked_for(found):
                yield StoredFile(found, file.size)
            else:
                log.warning("store.unnameable_file", fileset=fileset, path=ascii(found))

    @naming_relative_paths
    def stat(self, workspace_id: UUID, fileset_id: UUID, path: str) -> StoredFile:
        """The file at `path`. Raises FileNotFoundError, also for a directory."""
        self.verify()
        return self._stat(workspace_id, fileset_id, path)

    def _stat(self, workspace_id: UUID, fileset_id: UUID, path: str) -> StoredFile:
        return StoredFile(path, self._tree.file_size(_key(workspace_id, fileset_id, path)))

    @naming_relative_paths
    def read(self, workspace_id: UUID, fileset_id: UUID, path: str) -> Reading:
        """The bytes of the file at `path`. Raises FileNotFoundError, also for a directory."""
        self.verify()
        file = self._tree.open_file(_key(workspace_id, fileset_id, path))
        return Reading(file, self._tree.chunk_bytes, self._tree.etag(file), workspace_id=workspace_id)

    @naming_relative_paths
    def remove(self, workspace_id: UUID, fileset_id: UUID, path: str) -> StoredFile:
        """Delete one file and the directories that it leaves empty. Raises FileNotFoundError."""
        self.verify(before_destruction=True)
        file = self._stat(workspace_id, fileset_id, path)
        self._tree.remove_file(_key(workspace_id, fileset_id, path))
        return file

    @naming_relative_paths
    def purge_fileset(
        self, workspace_id: UUID, fileset_id: UUID, *, within_s: float = inf
    ) -> PartialPurge | None:
        """Delete all bytes of a fileset and verify that none is left. None is success, also if there were none.

        Stops `within_s` seconds after the first deletion. A PartialPurge is progress: something was removed for
        certain, and the next call continues from there.
        A file that cannot be deleted does not stop the purge of the others; its error is raised at the end, or at
        the deadline if nothing was removed. Raises BytesRemain if the store reported a success that was none.
        """
        with self._verified():
            return purge(self._tree, _key(workspace_id, fileset_id), within_s)

    @naming_relative_paths
    def remove_displaced(self, workspace_id: UUID, fileset_id: UUID | None = None) -> str | None:
        """Remove what stands in the place of the directory of a workspace or fileset; what it was.

        A link is removed, and what it leads to is left alone. None if there is a directory, or nothing.
        """
        top = _key(workspace_id, fileset_id) if fileset_id else str(workspace_id)
        if not self._tree.is_displaced(top):
            return None
        self.verify(before_destruction=True)
        return self._tree.remove_displaced(top)

    @naming_relative_paths
    def purge_workspace(self, workspace_id: UUID, *, keep: Set[UUID] = frozenset()) -> None:
        """Remove the staged uploads and empty directories of a workspace after all its filesets were purged.

        The filesets in `keep` and uploads to them are not touched: the store may refuse to delete them. Raises
        BytesRemain if any other fileset has bytes: it was never purged, and an operator has to find out why.
        """
        kept = {_key(workspace_id, fileset_id) for fileset_id in keep}
        with self._verified():
            self._purge_workspace(str(workspace_id), kept)

    def _purge_workspace(self, workspace: str, kept: Set[str]) -> None:
        # Uploads first, so that none of them can be published afterwards.
        for fileset in self._tree.with_staged_uploads(workspace) - kept:
            carry_out(self._tree, self._tree.remove_staged_uploads(fileset))
        if self._tree.with_staged_uploads(workspace) - kept:
            raise BytesRemain("an upload is still there after it was removed")
        for each in self._tree.children(workspace):
            if each.key in kept:
                continue
            if each.is_file or next(self._tree.files(each.key), None):
                raise BytesRemain(f"{below_workspace(each.key)} holds bytes of a fileset that is unknown")
            purge(self._tree, each.key)
        self._tree.prune(workspace)
        self._tree.sync(workspace)

    @naming_relative_paths
    def size(self, workspace_id: UUID) -> int:
        """The number of bytes in all filesets of a workspace."""
        return self.size_within(workspace_id, inf)[0]

    @naming_relative_paths
    def size_within(self, workspace_id: UUID, within_s: float) -> tuple[int, bool]:
        """The bytes that are found in the filesets of a workspace in so many seconds, and whether those are all."""
        self.verify()
        size, deadline = 0, monotonic() + within_s
        for file in self._tree.files(str(workspace_id)):
            size += file.size
            if monotonic() > deadline:
                return size, False
        return size, True

    @naming_relative_paths
    def workspace_ids(self, *, verified: bool = True) -> set[UUID]:
        """The workspaces that have any entry in the store, an empty directory included.

        Without `verified`, those of whatever store is there.
        """
        if verified:
            self.verify()
        ids = set()
        for top in self._tree.tops():
            with suppress(ValueError):  # `lost+found` and the like.
                ids.add(UUID(top))
        return ids


def open_tree(url: str) -> tuple[Tree, str]:
    """The tree of files at an fsspec URL, for their owner alone, and its root as errors name it.

    Opens no connection; raises as `BlobStore.open`.
    """
    filesystem, path, kind = _medium(url, None)
    root = path.rstrip("/")
    return kind(filesystem, root), root


def _medium(url: str, group: str | None) -> tuple[Any, str, Callable[[Any, str], Tree]]:
    """The filesystem that a URL names, the path in it, and the kind of tree for it."""
    if url.startswith(("s3://", "s3a://")) and "@" in urlsplit(url).netloc:
        raise ValueError(
            "the URL of a bucket must not contain credentials; set AWS_ACCESS_KEY_ID and the like instead"
        )
    # No cache of listings: a purge must see the files that other processes wrote.
    filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    if type(filesystem) is LocalFileSystem:
        return Disk(root, group=group), root, FileTree
    if "s3" not in filesystem.protocol:
        return filesystem, root, FileTree
    from app.storage.objecttree import ObjectTree  # noqa: PLC0415 -- s3fs is an extra

    return filesystem, root, ObjectTree


def _key(workspace_id: UUID, fileset_id: UUID, path: str = "") -> str:
    fileset = f"{workspace_id}/{fileset_id}"
    return f"{fileset}/{path}" if path else fileset
