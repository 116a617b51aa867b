"""Directories of an fsspec filesystem: honest listing, creation beside removal, removal that goes on after an error."""

import posixpath
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from app.storage.disk import Disk
from app.storage.tree import Removed

_CREATE_ATTEMPTS = 50
"""Requests that prune and requests that create do not meet more often than this, however busy the machine."""

R = TypeVar("R")


class Directories:
    """The directories of one filesystem. Every failure is raised; fsspec's own helpers hide many of them."""

    def __init__(self, filesystem: Any) -> None:
        self._fs = filesystem

    def entries(self, directory: str) -> Iterator[dict[str, Any]]:
        """The entries of a directory; none if it is missing. Any other failure is raised: it does not mean empty."""
        try:
            if isinstance(self._fs, Disk):
                yield from self._fs.scan(directory)
            else:
                for details in self._fs.ls(directory, detail=True):
                    if details["name"] != directory:  # A file lists as itself.
                        yield details
        except (FileNotFoundError, NotADirectoryError):
            return

    def create_below(self, path: str, act: Callable[[], R]) -> R:
        """Run `act` with the parent directories of `path` in place, although others may prune them while empty."""
        for _ in range(_CREATE_ATTEMPTS - 1):
            # makedirs raises FileExistsError for a directory that was pruned during its check.
            with suppress(FileNotFoundError, FileExistsError):
                self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
                return act()
        self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
        return act()

    def remove_below(self, top: str) -> Iterator[Removed | OSError]:
        """Delete everything below `top`, and `top` itself, step by step; an error does not stop it.

        What is no directory, such as a link, is removed as such.
        """
        kind = self._type(top)
        if kind is None:
            return  # nothing of it is here, also where a link or a file is in the place of one above
        if kind != "directory":
            yield from self.remove_step(self._fs.rm_file, top)
            return
        # Depth first, and each directory as soon as it is empty: a purge that was interrupted need not walk
        # through what is gone.
        pending = [(top, False)]
        while pending:
            directory, is_emptied = pending.pop()
            if is_emptied:
                # Some filesystems report success for a missing directory, so the top counts only if it fails.
                for step in self.remove_step(self._fs.rmdir, directory):
                    if pending or isinstance(step, OSError):
                        yield step
                continue
            pending.append((directory, True))
            try:
                for entry in self.entries(directory):
                    if entry["type"] == "directory":
                        pending.append((entry["name"], False))
                    else:
                        yield from self.remove_step(self._fs.rm_file, entry["name"])
            except OSError as error:  # It cannot be listed.
                yield error

    def displaced(self, directory: str) -> str | None:
        """What is in the place of a directory: a link or a file. None for a directory, and if there is nothing."""
        if self._type(directory) in {None, "directory"}:
            return None
        target = self._fs.target(directory) if isinstance(self._fs, Disk) else None
        return f"a link to {target}" if target is not None else "a file"

    def _type(self, path: str) -> str | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            return str(self._fs.info(path)["type"])
        return None

    @staticmethod
    def remove_step(remove: Callable[[str], Any], path: str) -> Iterator[Removed | OSError]:
        """Remove one path: yields the path or the error, and nothing if the path is gone already."""
        try:
            remove(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            yield error
        else:
            yield path

    def sync(self, directory: str) -> None:
        """Make durable what was added to and removed from the directory and those above it, where it is known how."""
        if isinstance(self._fs, Disk):
            self._fs.sync(directory)

    def prune(self, directory: str, *, below: str) -> None:
        """Remove the directory and its parents as long as they are empty, up to but not including `below`."""
        with suppress(OSError):  # Not empty.
            while directory != below:
                # It may be gone already, and may have been the last entry of its parent.
                with suppress(FileNotFoundError):
                    self._fs.rmdir(directory)
                directory = posixpath.dirname(directory)
