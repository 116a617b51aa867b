"""File trees on any fsspec filesystem, in which a file appears whole or not at all.

files/<key>              published files
staging/<within>/<id>    staged uploads, below the directory that they will be published in
"""

import io
import os
import posixpath
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from uuid_utils.compat import uuid7

from app.storage.directories import Directories
from app.storage.disk import Disk
from app.storage.staged_file import StagedFile
from app.storage.tree import Found, Removed


class FileTree:
    """A file tree on a filesystem with directories. Every failure is raised."""

    chunk_bytes = 1024 * 1024
    """The best size of the chunks in which a file is read."""

    trusted_s = 0.0
    """Seconds for which a store that was just seen to be ours is believed to be: a volume can go at any moment."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs = filesystem
        self._directories = Directories(filesystem)
        self._files, self._staging = f"{root}/files", f"{root}/staging"

    # --- reading ------------------------------------------------------------------------------------------

    def children(self, top: str = "") -> list[Found]:
        """The direct entries of `top`; none if it is missing. Any other failure is raised: it does not mean empty."""
        directory = f"{self._files}/{top}" if top else self._files
        return [
            Found(
                entry["name"].removeprefix(f"{self._files}/"),
                entry["size"] or 0,
                entry["type"] != "directory",
            )
            for entry in self._directories.entries(directory)
        ]

    def files(self, top: str) -> Iterator[Found]:
        """Every file below `top`, at any depth, in the order of their keys. Holds one directory's names in memory."""
        # fsspec's `find` treats a directory that cannot be listed as an empty one.
        levels = [self._sorted_names(top)]
        while levels:
            name, size = next(levels[-1], (None, 0))
            if name is None:
                levels.pop()
            elif name.endswith("/"):
                levels.append(self._sorted_names(name[:-1]))
            else:
                yield Found(name, size, is_file=True)

    def _sorted_names(self, top: str) -> Iterator[tuple[str, int]]:
        # The name of a directory sorts with the slash that follows it in keys: `a-b` comes before `a/b`.
        names = [
            (posixpath.basename(entry["name"]) + "/" * (entry["type"] == "directory"), entry["size"] or 0)
            for entry in self._directories.entries(f"{self._files}/{top}")
            if entry["type"] in ("directory", "file")  # not a link, which is not followed
        ]
        names.sort()
        return ((f"{top}/{name}", size) for name, size in names)

    def tops(self) -> set[str]:
        """The first components of all keys, those of staged uploads included."""
        listed = (*self._directories.entries(self._files), *self._directories.entries(self._staging))
        return {posixpath.basename(entry["name"]) for entry in listed}

    def file_size(self, key: str) -> int:
        """The size of a file in bytes. Raises FileNotFoundError, also for a directory and for a key below a file."""
        try:
            entry = self._fs.info(f"{self._files}/{key}")
        except NotADirectoryError:
            raise _not_a_file(f"{self._files}/{key}") from None
        if entry["type"] != "file":
            raise _not_a_file(f"{self._files}/{key}")
        return int(entry["size"])

    def open_file(self, key: str) -> Any:
        """The file, open for reading, with its `size`. Raises FileNotFoundError as `file_size` does."""
        try:
            return self._fs.open(f"{self._files}/{key}", "rb")
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            # fsspec's memory filesystem raises FileExistsError for a directory.
            raise FileNotFoundError(*error.args, error.filename) from None

    def read_start(self, key: str, size: int) -> bytes:
        """The first bytes of a file, at most `size`. Raises FileNotFoundError as `file_size` does."""
        file = self.open_file(key)
        try:
            return bytes(file.read(min(file.size, size)))
        finally:
            file.close()

    def etag(self, file: Any) -> str:
        """A token that differs for every content of the key; empty if the filesystem offers none."""
        try:
            found = os.fstat(file.fileno())
        except (AttributeError, io.UnsupportedOperation):
            return ""
        return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"

    # --- writing ------------------------------------------------------------------------------------------

    def stage(self, key: str, *, within: str, size: int | None = None) -> StagedFile:  # noqa: ARG002 -- for ObjectTree
        """Begin an upload that will be published as `key`. Directories are made only below `within`.

        `size` is the maximum number of bytes, if it is known.
        """
        path = f"{self._staging}/{within}/{uuid7()}"
        return StagedFile(
            self._directories.create_below(path, lambda: self._fs.open(path, "wb")),
            move_to_key=partial(self._publish_staged, path, key, within),
            remove=partial(self._remove_staged, path),
        )

    def _publish_staged(self, path: str, key: str, within: str) -> None:
        target = f"{self._files}/{key}"
        try:
            self._refuse_conflict(target, f"{self._files}/{within}".rstrip("/"))
            self._directories.create_below(target, lambda: self._replace(path, target))
            # Without it a power cut could take the name of a file that was answered as stored.
            self._directories.sync(posixpath.dirname(target))
        except OSError as error:
            # The fileset may be deleted: directories made for the upload must not outlive it.
            self._directories.prune(posixpath.dirname(target), below=self._files)
            if isinstance(error, FileExistsError):  # makedirs raises it for a file in its way.
                raise NotADirectoryError(f"{target} lies below a file") from None
            raise

    def _remove_staged(self, path: str) -> None:
        try:
            self._fs.rm_file(path)
        finally:
            self._directories.prune(posixpath.dirname(path), below=self._staging)

    def _refuse_conflict(self, target: str, within: str) -> None:
        # The memory filesystem would keep `a` beside `a/b`.
        if self._fs.isdir(target):
            raise IsADirectoryError(f"{target} is a directory")
        above = posixpath.dirname(target)
        while above != within:
            if self._fs.isfile(above):
                raise NotADirectoryError(f"{above} is a file")
            above = posixpath.dirname(above)

    def _replace(self, source: str, target: str) -> None:
        if isinstance(self._fs, Disk):
            self._fs.replace(source, target)
        else:
            self._fs.cp_file(source, target)
            self._fs.rm_file(source)

    def restrict(self) -> None:
        """Close the directories to others, if an earlier release left them open."""
        if isinstance(self._fs, Disk):
            self._fs.restrict(self._files)
            self._fs.restrict(self._staging)

    # --- removing -----------------------------------------------------------------------------------------

    def remove_file(self, key: str) -> None:
        """Delete one file and the directories that it leaves empty. Raises FileNotFoundError."""
        path = f"{self._files}/{key}"
        self._fs.rm_file(path)
        self._directories.prune(posixpath.dirname(path), below=self._files)
        self._directories.sync(posixpath.dirname(path))

    def is_displaced(self, top: str) -> bool:
        """Whether a link or a file stands where the directory `top` should."""
        return self._directories.displaced(f"{self._files}/{top}") is not None

    def remove_displaced(self, top: str) -> str | None:
        """Remove a link or a file that stands where the directory `top` should; what it was, None if it did not."""
        path = f"{self._files}/{top}"
        if was := self._directories.displaced(path):
            self._fs.rm_file(path)
            self.sync(top)
        return was

    def remove_all(self, top: str) -> Iterator[Removed | OSError]:
        """Delete everything below `top` step by step; each step yields the removed path or its error.

        Staged uploads go first, so that none of them can be published afterwards.
        """
        yield from self.remove_staged_uploads(top)
        yield from self._directories.remove_below(f"{self._files}/{top}")

    def is_there(self, removed: Removed) -> bool:
        """Whether a path that a step reported as removed still exists."""
        with suppress(FileNotFoundError):
            self._fs.info(removed)
            return True
        return False

    def sync(self, top: str) -> None:
        """Make the removal of `top` durable: it must not come back after a power cut."""
        self._directories.sync(posixpath.dirname(f"{self._files}/{top}"))
        self._directories.sync(posixpath.dirname(f"{self._staging}/{top}"))

    def remains(self, top: str) -> str | None:
        """The key of any entry that is still below `top`, an empty directory included."""
        return next((each.key for each in self.children(top)), None)

    def prune(self, top: str) -> None:
        """Remove `top` and its parents if they are empty, for files and for staged uploads."""
        self._directories.prune(f"{self._files}/{top}", below=self._files)
        self._directories.prune(f"{self._staging}/{top}", below=self._staging)

    # --- staged uploads -----------------------------------------------------------------------------------

    def remove_staged_uploads(self, top: str) -> Iterator[Removed | OSError]:
        """Delete all staged uploads below `top`, in steps as `remove_all`; none can be published after this."""
        return self._directories.remove_below(f"{self._staging}/{top}")

    def with_staged_uploads(self, top: str) -> set[str]:
        """The direct children of `top` that have staged uploads, as keys."""
        listed = self._directories.entries(f"{self._staging}/{top}")
        return {f"{top}/{posixpath.basename(entry['name'])}" for entry in listed}

    def collect_staged_uploads(self, older_than: datetime) -> Iterator[Removed | OSError]:
        """Delete the staged uploads that were last written before `older_than`, in steps as `remove_all`."""
        directories = [self._staging]
        for directory in directories:  # The list grows during the loop; parents stand before their children.
            try:
                for entry in self._directories.entries(directory):
                    if entry["type"] == "directory":
                        directories.append(entry["name"])
                    elif self._is_older(entry["name"], older_than):
                        yield from self._directories.remove_step(self._fs.rm_file, entry["name"])
            except OSError as error:  # It cannot be listed.
                yield error
        for directory in reversed(directories[1:]):
            self._directories.prune(directory, below=self._staging)

    def _is_older(self, path: str, than: datetime) -> bool:
        try:
            return bool(self._fs.modified(path) < than)
        except FileNotFoundError:  # Published or discarded meanwhile.
            return False


def _not_a_file(path: str) -> FileNotFoundError:
    return FileNotFoundError(f"{path} is not a file")
