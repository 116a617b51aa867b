"""Directory trees on any fsspec filesystem: honest listing, removal that goes on, files that appear whole.

files/<key>                      what is published
staging/<within>/<id>    drafts: files on their way, below that which they will be in
"""

import io
import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from fsspec.implementations.local import LocalFileSystem
from uuid_utils.compat import uuid7

from app.storage.tree import Found, Removed

_PARENT_ATTEMPTS = 50
"""Requests that prune and requests that create do not meet more often than this, however busy the machine."""

R = TypeVar("R")


class FileDraft:
    """A file that is being written and that nobody sees yet."""

    def __init__(self, tree: "FileTree", key: str, within: str) -> None:
        self._tree, self._target, self._within = tree, key, within
        self._path = tree.new_draft_path(within)
        self._file = tree.create(self._path)

    def write(self, chunk: bytes) -> None:
        """Add to the end. May raise FileNotFoundError if it was collected."""
        self._file.write(chunk)

    def finish(self) -> None:
        """Nothing more will be written: keep what was. Raises as `publish` does, as far as that is known already."""
        # To the disk, where there is one: a power cut could otherwise leave a name with no bytes.
        with suppress(AttributeError, io.UnsupportedOperation):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def publish(self) -> None:
        """Put it in its place at once, instead of whatever file was there.

        Raises IsADirectoryError or NotADirectoryError where a file and a directory would share a key,
        FileNotFoundError when it was collected meanwhile.
        """
        self._tree.move_draft(self._path, self._target, within=self._within)

    def discard(self) -> None:
        """Drop it; no harm if it was published. Never fails: `collect_drafts` removes what stays."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._tree.remove_draft(self._path)


class FileTree:
    """A filesystem with directories. Everything it cannot do is raised; fsspec's own helpers often keep quiet."""

    chunk_bytes = 1024 * 1024
    """In which pieces files are best read."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs = filesystem
        self._files, self._staging = f"{root}/files", f"{root}/staging"

    # --- looking ------------------------------------------------------------------------------------------

    def children(self, top: str = "") -> list[Found]:
        """What is right below; nothing if `top` is missing. Any other failure is raised: it does not mean empty."""
        directory = f"{self._files}/{top}" if top else self._files
        return [
            Found(
                entry["name"].removeprefix(f"{self._files}/"),
                entry["size"] or 0,
                entry["type"] != "directory",
            )
            for entry in self._list(directory)
        ]

    def files(self, top: str) -> Iterator[Found]:
        """Every file below, however deep, in the order of their keys; in the memory of one directory's names."""
        # Not fsspec's find: it takes a directory that cannot be listed for an empty one.
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
        # A directory with the slash that follows it in the keys of its files: `a-b` comes before `a/b`.
        names = [
            (posixpath.basename(entry["name"]) + "/" * (entry["type"] == "directory"), entry["size"] or 0)
            for entry in self._list(f"{self._files}/{top}")
        ]
        names.sort()
        return ((f"{top}/{name}", size) for name, size in names)

    def tops(self) -> set[str]:
        """The first parts of all keys, also of drafts."""
        listed = (*self._list(self._files), *self._list(self._staging))
        return {posixpath.basename(entry["name"]) for entry in listed}

    def file_size(self, key: str) -> int:
        """Bytes of the file. Raises FileNotFoundError, also for a directory and below a file."""
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
        except (
            IsADirectoryError,
            NotADirectoryError,
            FileExistsError,
        ) as error:  # The last is memory's word.
            raise FileNotFoundError(*error.args, error.filename) from None

    def etag(self, file: Any) -> str:
        """What tells the content of an open file from any other of its key; empty if nothing does."""
        try:
            found = os.fstat(file.fileno())
        except (AttributeError, io.UnsupportedOperation):
            return ""
        return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"

    def _list(self, directory: str) -> Iterator[dict[str, Any]]:
        try:
            # A disk is read as it goes: details of a million files in one directory are half a gigabyte, and a
            # purge could not begin while they are gathered. What is derived from it may list in its own way.
            if type(self._fs) is LocalFileSystem:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        with suppress(FileNotFoundError):  # Gone since.
                            yield self._fs.info(entry)
            else:
                for details in self._fs.ls(directory, detail=True):
                    if details["name"] != directory:  # A file lists as itself.
                        yield details
        except (FileNotFoundError, NotADirectoryError):
            return

    # --- writing ------------------------------------------------------------------------------------------

    def draft(self, key: str, *, within: str, size: int | None = None) -> FileDraft:  # noqa: ARG002 -- for ObjectTree
        """Begin a file that will appear as `key`. Directories are made only below `within`.

        `size` is how many bytes it will have at most, if that is known.
        """
        return FileDraft(self, key, within)

    def new_draft_path(self, within: str) -> str:
        """Where a draft of a file below `within` can be written."""
        return f"{self._staging}/{within}/{uuid7()}"

    def create(self, path: str) -> Any:
        """A new file, open for writing, with the directories above it."""
        return self._beside_others(path, lambda: self._fs.open(path, "wb"))

    def move_draft(self, path: str, key: str, *, within: str) -> None:
        """Publish: see FileDraft."""
        target = f"{self._files}/{key}"
        try:
            self._refuse_conflict(target, f"{self._files}/{within}")
            self._beside_others(target, lambda: self._replace(path, target))
        except OSError as error:
            # Whatever it was for may be gone for good: the directories made for it must not outlive that.
            self._prune(posixpath.dirname(target), below=self._files)
            if isinstance(error, FileExistsError):  # What makedirs says of a file in its way.
                raise NotADirectoryError(f"{target} lies below a file") from None
            raise

    def _beside_others(self, path: str, act: Callable[[], R]) -> R:
        """`act` with the directories of `path` there, although others may prune them while they are empty."""
        for _ in range(_PARENT_ATTEMPTS - 1):
            # makedirs says "exists" of a directory that was pruned while it looked.
            with suppress(FileNotFoundError, FileExistsError):
                self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
                return act()
        self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
        return act()

    def _refuse_conflict(self, target: str, within: str) -> None:
        # Memory would keep `a` beside `a/b`.
        if self._fs.isdir(target):
            raise IsADirectoryError(f"{target} is a directory")
        above = posixpath.dirname(target)
        while above != within:
            if self._fs.isfile(above):
                raise NotADirectoryError(f"{above} is a file")
            above = posixpath.dirname(above)

    def _replace(self, source: str, target: str) -> None:
        if isinstance(self._fs, LocalFileSystem):
            os.replace(source, target)  # noqa: PTH105 -- keys are text; fsspec's own move is not atomic
        else:
            self._fs.cp_file(source, target)
            self._fs.rm_file(source)

    # --- removing -----------------------------------------------------------------------------------------

    def remove_file(self, key: str) -> None:
        """Delete one file, and the directories that are empty without it. Raises FileNotFoundError."""
        path = f"{self._files}/{key}"
        self._fs.rm_file(path)
        self._prune(posixpath.dirname(path), below=self._files)

    def remove_all(self, top: str) -> Iterator[Removed | OSError]:
        """Delete everything below that lets itself be deleted, step by step: what went, and the errors of what did not.

        Drafts first: whoever publishes one although its time is over finds nothing to publish.
        """
        yield from self.remove_drafts(top)
        yield from self._remove_below(f"{self._files}/{top}")

    def is_there(self, removed: Removed) -> bool:
        """Whether something that was said to be removed is not."""
        with suppress(FileNotFoundError):
            self._fs.info(removed)
            return True
        return False

    def remains(self, top: str) -> str | None:
        """The key of something that is still below, be it an empty directory."""
        return next((each.key for each in self.children(top)), None)

    def prune(self, top: str) -> None:
        """Remove the directories, of files and of drafts, that are empty."""
        self._prune(f"{self._files}/{top}", below=self._files)
        self._prune(f"{self._staging}/{top}", below=self._staging)

    # --- drafts -------------------------------------------------------------------------------------------

    def remove_draft(self, path: str) -> None:
        """Delete one draft. Raises FileNotFoundError when it is not there."""
        try:
            self._fs.rm_file(path)
        finally:
            self._prune(posixpath.dirname(path), below=self._staging)

    def remove_drafts(self, top: str) -> Iterator[Removed | OSError]:
        """Delete all drafts of files below, as `remove_all`: none of them can be published after this."""
        return self._remove_below(f"{self._staging}/{top}")

    def drafted(self, top: str) -> set[str]:
        """The keys right below that have drafts."""
        return {
            f"{top}/{posixpath.basename(entry['name'])}" for entry in self._list(f"{self._staging}/{top}")
        }

    def collect_drafts(self, older_than: datetime) -> Iterator[Removed | OSError]:
        """Delete the drafts that nobody has written to since then, as `remove_all`."""
        directories = [self._staging]
        for directory in directories:  # Grows as we go; parents stand before their children.
            try:
                for entry in self._list(directory):
                    if entry["type"] == "directory":
                        directories.append(entry["name"])
                    elif self._is_older(entry["name"], older_than):
                        yield from _attempt(self._fs.rm_file, entry["name"])
            except OSError as error:  # It cannot be listed.
                yield error
        for directory in reversed(directories[1:]):
            self._prune(directory, below=self._staging)

    def _is_older(self, draft: str, than: datetime) -> bool:
        try:
            return bool(self._fs.modified(draft) < than)
        except FileNotFoundError:  # Published or discarded meanwhile.
            return False

    def _remove_below(self, top: str) -> Iterator[Removed | OSError]:
        # Depth first, and each directory as soon as it is empty: whoever breaks off and begins again need not
        # walk through what has gone.
        waiting = [(top, False)]
        while waiting:
            directory, is_emptied = waiting.pop()
            if is_emptied:
                # The top may not have been there, for all that some filesystems say: it counts only if it refuses.
                for step in _attempt(self._fs.rmdir, directory):
                    if waiting or isinstance(step, OSError):
                        yield step
                continue
            waiting.append((directory, True))
            try:
                for entry in self._list(directory):
                    if entry["type"] == "directory":
                        waiting.append((entry["name"], False))
                    else:
                        yield from _attempt(self._fs.rm_file, entry["name"])
            except OSError as error:  # It cannot be listed.
                yield error

    def _prune(self, directory: str, *, below: str) -> None:
        with suppress(OSError):  # Not empty.
            while directory != below:
                with suppress(
                    FileNotFoundError
                ):  # Gone already, and perhaps the last thing in the one above.
                    self._fs.rmdir(directory)
                directory = posixpath.dirname(directory)


def _not_a_file(path: str) -> FileNotFoundError:
    return FileNotFoundError(f"{path} is not a file")


def _attempt(remove: Callable[[str], Any], path: str) -> Iterator[Removed | OSError]:
    try:
        remove(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        yield error
    else:
        yield path
