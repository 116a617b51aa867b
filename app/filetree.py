"""Directory trees on any fsspec filesystem: honest listing, removal that goes on, moves that are atomic."""

import io
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from fsspec.implementations.local import LocalFileSystem

_PARENT_ATTEMPTS = (
    5  # Requests that prune and requests that create do not meet more often than this by chance.
)

R = TypeVar("R")
Entry = dict[str, Any]
"""What fsspec tells of a file or directory: at least `name`, `size` and `type`."""


class FileTree:
    """A filesystem by full keys. Everything it cannot do is raised; fsspec's own helpers often keep quiet."""

    def __init__(self, filesystem: Any) -> None:
        self._fs = filesystem

    def children(self, directory: str) -> list[Entry]:
        """Entries right below; none if it is missing. Any other failure is raised: it does not mean empty."""
        try:
            entries: list[Entry] = self._fs.ls(directory, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        # A file lists as itself, and so do the directory markers of some object stores.
        return [entry for entry in entries if entry["name"] != directory]

    def walk(self, top: str) -> Iterator[Entry]:
        """Everything below, directories before what is in them."""
        # Not fsspec's find: it takes a directory that cannot be listed for an empty one.
        waiting = [top]
        while waiting:
            for entry in self.children(waiting.pop()):
                if entry["type"] == "directory":
                    waiting.append(entry["name"])
                yield entry

    def file_size(self, key: str) -> int:
        """Bytes of the file. Raises FileNotFoundError, also for a directory and below a file."""
        try:
            entry = self._fs.info(key)
        except NotADirectoryError:
            raise _not_a_file(key) from None
        if entry["type"] != "file":
            raise _not_a_file(key)
        return int(entry["size"])

    def open_file(self, key: str) -> Any:
        """The file, open for reading. Raises FileNotFoundError as `file_size` does."""
        try:
            return self._fs.open(key, "rb")
        except (
            IsADirectoryError,
            NotADirectoryError,
            FileExistsError,
        ) as error:  # The last is memory's word.
            raise FileNotFoundError(*error.args, error.filename) from None

    def modified_at(self, key: str) -> Any:
        """When the file was written last, aware."""
        return self._fs.modified(key)

    def write_file(self, key: str, chunks: Iterable[bytes]) -> int:
        """Write a file and the directories above it; its size."""
        with self._beside_others(key, lambda: self._fs.open(key, "wb")) as file:
            size: int = sum(file.write(chunk) for chunk in chunks)
            # To the disk, where there is one: a power cut could otherwise leave a name with no bytes.
            with suppress(AttributeError, io.UnsupportedOperation):
                file.flush()
                os.fsync(file.fileno())
        return size

    def move_file(self, source: str, target: str, *, within: str) -> None:
        """Put `source` in the place of `target` at once, making directories below `within`.

        Raises IsADirectoryError or NotADirectoryError where a file and a directory would share a path.
        """
        self._refuse_conflict(target, within)
        try:
            self._beside_others(target, lambda: self._replace(source, target))
        except FileExistsError:  # What makedirs says of a file in its way.
            raise NotADirectoryError(f"{target} lies below a file") from None

    def remove_file(self, key: str) -> None:
        """Delete one file. Raises FileNotFoundError."""
        self._fs.rm_file(key)

    def remove_all(self, top: str) -> None:
        """Delete everything below `top` that lets itself be deleted, and then raise the first error."""
        failures: list[OSError] = []
        directories = [top]
        for directory in directories:  # Grows as we go; parents stand before their children.
            try:
                for entry in self.children(directory):
                    if entry["type"] == "directory":
                        directories.append(entry["name"])
                    else:
                        _attempt(self._fs.rm_file, entry["name"], failures)
            except OSError as error:
                failures.append(error)
        for directory in reversed(directories):
            _attempt(self._fs.rmdir, directory, failures)
        if failures:
            raise failures[0]

    def prune(self, directory: str, *, below: str) -> None:
        """Remove `directory` and those above it, up to `below`, while they are empty."""
        with suppress(OSError):  # Not empty, or gone already.
            while directory != below:
                self._fs.rmdir(directory)
                directory = posixpath.dirname(directory)

    def _beside_others(self, key: str, act: Callable[[], R]) -> R:
        """`act` with the directories of `key` there, although others may prune them while they are empty."""
        for _ in range(_PARENT_ATTEMPTS - 1):
            # makedirs says "exists" of a directory that was pruned while it looked.
            with suppress(FileNotFoundError, FileExistsError):
                self._fs.makedirs(posixpath.dirname(key), exist_ok=True)
                return act()
        self._fs.makedirs(posixpath.dirname(key), exist_ok=True)
        return act()

    def _refuse_conflict(self, target: str, within: str) -> None:
        # Object stores would keep `a` beside `a/b`, and nobody could download both to a disk.
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
            # Atomic for readers all the same: object stores show an object only when it is whole.
            self._fs.cp_file(source, target)
            self._fs.rm_file(source)


def _not_a_file(key: str) -> FileNotFoundError:
    return FileNotFoundError(f"{key} is not a file")


def _attempt(remove: Callable[[str], Any], key: str, failures: list[OSError]) -> None:
    try:
        remove(key)
    except FileNotFoundError:
        pass
    except OSError as error:
        failures.append(error)
