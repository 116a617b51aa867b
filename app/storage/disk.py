"""A local disk below one directory, on which no link is followed: a job may have planted it.

Only the directory itself may be, or lie behind, a link: that is the operator's.
"""

import errno
import grp
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC


class OpenFile(io.BufferedReader):
    """A file that is open for reading."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(io.FileIO(descriptor))
        self.size = os.fstat(descriptor).st_size

    def __del__(self) -> None:
        self.close()  # a response that nobody reads is not always closed


class Disk:
    """The methods of an fsspec filesystem that the store uses. Paths are absolute and below `root`.

    Files and directories are for their owner alone; with a `group`, its members may read them. A link, a pipe or a
    device is of type `other`, and so is never read. OSErrors name the whole path.
    """

    def __init__(self, root: str, *, group: str | None = None) -> None:
        self._root = root.rstrip("/") or "/"
        self._group = grp.getgrnam(group).gr_gid if group else -1
        # The set-group-ID bit gives what is made below the same group.
        self._file_mode, self._directory_mode = (0o640, 0o2750) if group else (0o600, 0o700)

    # --- looking ------------------------------------------------------------------------------------------

    def info(self, path: str) -> dict[str, Any]:
        """What is at `path`: its `name`, `size` and `type`. Raises FileNotFoundError and NotADirectoryError."""
        with self._parent_of(path) as (parent, name):
            return _describe(path, os.stat(name, dir_fd=parent, follow_symlinks=False))

    def isdir(self, path: str) -> bool:
        return self._type(path) == "directory"

    def isfile(self, path: str) -> bool:
        return self._type(path) == "file"

    def _type(self, path: str) -> str | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            return str(self.info(path)["type"])
        return None

    def target(self, path: str) -> str | None:
        """Where the link at `path` leads; None if it is no link."""
        with suppress(OSError), self._parent_of(path) as (parent, name):
            return os.readlink(name, dir_fd=parent)
        return None

    def modified(self, path: str) -> datetime:
        with self._parent_of(path) as (parent, name):
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        return datetime.fromtimestamp(found.st_mtime, UTC)

    def scan(self, directory: str) -> Iterator[dict[str, Any]]:
        """The entries of a directory, read as a stream: the details of a million files take half a gigabyte."""
        with self._directory(directory) as opened, os.scandir(opened) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # removed since it was listed
                    yield _describe(f"{directory}/{entry.name}", entry.stat(follow_symlinks=False))

    # --- reading and writing ------------------------------------------------------------------------------

    def open(self, path: str, mode: str) -> Any:
        """`rb`: a plain file, to read. `wb`: a new file, to write."""
        with self._parent_of(path) as (parent, name):
            if mode == "wb":
                return os.fdopen(self._create(parent, name), "wb")
            # A pipe would be waited for.
            descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _FILE, dir_fd=parent)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return OpenFile(descriptor)
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, "not a file")

    def _create(self, parent: int, name: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
        descriptor = os.open(name, flags, self._file_mode, dir_fd=parent)
        os.fchmod(descriptor, self._file_mode)  # whatever the umask is
        return descriptor

    def makedirs(self, path: str, *, exist_ok: bool = True) -> None:
        """Make a directory and those above it. Raises NotADirectoryError for a link or a file in their place."""
        if not exist_ok:
            raise NotImplementedError
        self._make_root()
        for directory in self._prefixes(path):
            with self._parent_of(directory) as (parent, name), suppress(FileExistsError):
                os.mkdir(name, self._directory_mode, dir_fd=parent)
                self._claim(name, parent)

    def _make_root(self) -> None:
        if not os.path.isdir(self._root):  # noqa: PTH112 -- of 3 calls per upload
            os.makedirs(self._root, self._directory_mode, exist_ok=True)  # noqa: PTH103 -- beside the other
            above = os.open(f"{self._root}/..", _DIRECTORY)
            try:
                os.fsync(above)  # or a power cut could take all that is below
            finally:
                os.close(above)

    def _claim(self, name: str, parent: int) -> None:
        if self._group >= 0:
            os.chown(name, -1, self._group, dir_fd=parent, follow_symlinks=False)
            os.chmod(name, self._directory_mode, dir_fd=parent)

    def replace(self, source: str, target: str) -> None:
        """Rename atomically; a file or a link at `target` is replaced."""
        with self._parent_of(source) as (old, name), self._parent_of(target) as (new, new_name):
            os.replace(name, new_name, src_dir_fd=old, dst_dir_fd=new)

    def rm_file(self, path: str) -> None:
        with self._parent_of(path) as (parent, name):
            os.unlink(name, dir_fd=parent)

    def rmdir(self, path: str) -> None:
        with self._parent_of(path) as (parent, name):
            os.rmdir(name, dir_fd=parent)

    def sync(self, directory: str) -> None:
        """Make durable what was added to, renamed in or removed from `directory` and those above it."""
        for path in (self._root, *self._prefixes(directory)):
            try:
                with self._directory(path) as opened:
                    os.fsync(opened)
            except (FileNotFoundError, NotADirectoryError):
                return  # what is above is synced, and so its absence

    def restrict(self, directory: str) -> None:
        """Close a directory that an earlier release made to others, and so all that is below it."""
        with suppress(FileNotFoundError), self._directory(directory) as opened:
            if stat.S_IMODE(os.fstat(opened).st_mode) & ~self._directory_mode:
                os.fchmod(opened, self._directory_mode)

    # --- the way down -------------------------------------------------------------------------------------

    def _prefixes(self, path: str) -> Iterator[str]:
        """The directories from below the root down to `path`."""
        reached = self._root
        for component in path.removeprefix(self._root).strip("/").split("/"):
            if component:
                reached = f"{reached}/{component}"
                yield reached

    @contextmanager
    def _parent_of(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory that holds `path`, open, and the name of `path` in it."""
        above, _, name = path.rpartition("/")
        with _naming(path), self._opened(above) as parent:
            yield parent, name

    @contextmanager
    def _directory(self, path: str) -> Iterator[int]:
        """The directory at `path`, open."""
        with _naming(path), self._opened(path) as opened:
            yield opened

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        """Each step goes down from the one before, and along no link."""
        opened = os.open(self._root, _DIRECTORY)
        try:
            for each in self._prefixes(path):
                below = os.open(each.rpartition("/")[2], _DIRECTORY | os.O_NOFOLLOW, dir_fd=opened)
                os.close(opened)
                opened = below
            yield opened
        finally:
            os.close(opened)


def _describe(path: str, found: os.stat_result) -> dict[str, Any]:
    plain = {stat.S_IFDIR: "directory", stat.S_IFREG: "file"}
    return {"name": path, "size": found.st_size, "type": plain.get(stat.S_IFMT(found.st_mode), "other")}


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Name `path` in OSErrors, which know only its last component; a link in the way is no directory."""
    try:
        yield
    except OSError as error:
        number = errno.ENOTDIR if error.errno == errno.ELOOP else error.errno
        raise OSError(number, error.strerror, path) from None
