"""Finds the files that a step left as results. Follows links inside the work directory, and never one out of it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.errors import BadRequest
from app.runtime.processes.workdir import OnProgress
from app.storage.disk import Disk, OpenFile
from app.storage.paths import checked_path

_RESULTS = "results"  # The directory in the work directory, as `WorkDirectory.results`.
_MOST_LINKS = 40  # As many as the kernel follows on the way to one file.
_MOST_ENTRIES = 100_000  # Links can make a few directories look like any number of them.
_MOST_HOLES = 64 * 1024 * 1024
_PATH_BYTES = 1024  # A longer path is not stored, so nothing below it is either.


class NotStored(Exception):
    """One result cannot be stored, whatever the store does; the message says why."""


@dataclass(frozen=True)
class ResultFile:
    """A file, by its path below the results directory, and the place of its content, on a way without links."""

    path: str
    place: str


@dataclass
class ResultFiles:
    """What a step left in the results directory of the work directory `top`.

    `on_progress` is called for each file and directory; what it raises ends the search. `not_stored` gets what cannot
    be stored, with the reason: links that lead out of `top`, pipes, names that the API could not serve in `folder`.
    """

    top: Path
    on_progress: OnProgress
    not_stored: dict[str, str] = field(default_factory=dict)
    folder: str = _RESULTS
    """Where they are to be stored in a fileset."""

    def __post_init__(self) -> None:
        # From above `top`: a job can put a link in the place of its own directory.
        self._disk, self._top = Disk(str(self.top.parent)), str(self.top)
        self._known_tops = (self._top, f"{os.path.realpath(self.top.parent)}/{self.top.name}")
        self._entries = 0

    def each(self) -> Iterator[tuple[str, Iterator[ResultFile]]]:
        """Each name at the top of the results directory, in order, with the files at and below it."""
        try:
            results = self._resolve(f"{self._top}/{_RESULTS}")
            names = sorted(entry["name"].rpartition("/")[2] for entry in self._disk.scan(results))
        except (FileNotFoundError, NotADirectoryError):
            return  # the step removed it
        except (NotStored, OSError) as error:
            self.skip(_RESULTS, error)
            return
        for name in names:
            yield name, self._files(name, f"{results}/{name}", results)

    def skip(self, path: str, why: Exception | str) -> None:
        """Note that a result is not stored."""
        message = why.message if isinstance(why, BadRequest) else getattr(why, "strerror", None) or str(why)
        self.not_stored[path.encode(errors="surrogateescape").decode(errors="backslashreplace")] = message

    def open(self, file: ResultFile, *, at_most: int) -> OpenFile:
        """The content of a file. Raises NotStored if it has more than `at_most` bytes (0: any), and OSError."""
        opened: OpenFile = self._disk.open(file.place, "rb")
        size, why = opened.size, ""
        if at_most and size > at_most:
            why = f"it has {size} bytes, more than the {at_most} of WORKSPACES_MAX_UPLOAD_BYTES"
        elif _holes(opened) > _MOST_HOLES:
            why = f"of its {size} bytes more than {_MOST_HOLES} are holes: pack it, for example with tar --sparse"
        if why:
            opened.close()
            raise NotStored(why)
        return opened

    def _files(self, name: str, place: str, results: str) -> Iterator[ResultFile]:
        # Not recursive: a job can nest directories deeper than Python can go.
        waiting: list[tuple[str, str, tuple[str, ...]]] = [(name, place, (results,))]
        while waiting:
            path, place, above = waiting.pop()
            try:
                yield from self._visit(path, place, above, waiting)
            except (BadRequest, NotStored, OSError) as error:
                self.skip(path, error)

    def _visit(
        self, path: str, place: str, above: tuple[str, ...], waiting: list[tuple[str, str, tuple[str, ...]]]
    ) -> Iterator[ResultFile]:
        self._entries += 1
        self.on_progress()
        if self._entries > _MOST_ENTRIES:
            waiting.clear()
            raise NotStored(f"a step can leave {_MOST_ENTRIES} files and directories at most")
        if len(os.fsencode(path)) > _PATH_BYTES:
            raise NotStored(f"its path has more than {_PATH_BYTES} bytes")
        kind = self._disk.info(place)["type"]
        if kind == "other" and self._disk.target(place) is not None:
            place = self._resolve(place)
            kind = self._disk.info(place)["type"]
        if kind == "directory":
            if place in above:
                raise NotStored("a link to a directory that it lies in")
            found = sorted(
                (entry["name"].rpartition("/")[2] for entry in self._disk.scan(place)), reverse=True
            )
            waiting += [(f"{path}/{name}", f"{place}/{name}", (*above, place)) for name in found]
        elif kind == "file":
            checked_path(f"{self.folder}/{path}")  # the API serves no other paths
            yield ResultFile(path, place)
        else:
            raise NotStored("it is neither a file nor a directory")

    def _resolve(self, path: str) -> str:
        """The same place on a way without links, of which there may be one at its end alone.

        Raises NotStored if that is outside the work directory. The kernel does not do this: it would follow a link
        that is changed meanwhile.
        """
        (at, _, name), links = path.rpartition("/"), 0
        coming = [name]
        while coming:
            component = coming.pop()
            if component in ("", "."):
                continue
            if component == "..":
                if at == self._top:
                    raise NotStored("a link that leads out of the job's directory")
                at = at.rpartition("/")[0]
                continue
            target = self._disk.target(f"{at}/{component}")
            if target is None:
                at = f"{at}/{component}"
                continue
            links += 1
            if links > _MOST_LINKS:
                raise NotStored("a link that leads back to itself")
            if target.startswith("/"):
                at, target = self._top, self._below_top(target)
            coming += target.split("/")[::-1]
        if links and not self._exists(at):
            raise NotStored("a link that leads to nothing")
        return at

    def _below_top(self, target: str) -> str:
        for top in self._known_tops:
            if target == top or target.startswith(f"{top}/"):
                return target.removeprefix(top)
        raise NotStored("a link that leads out of the job's directory")

    def _exists(self, place: str) -> bool:
        try:
            self._disk.info(place)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def _holes(file: OpenFile) -> int:
    """The bytes of a file that are nowhere on the disk, or the first of them that are too many."""
    descriptor, at, holes = file.fileno(), 0, 0
    while at < file.size and holes <= _MOST_HOLES:
        try:
            data = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # no data up to the end
            data = file.size
        holes += data - at
        at = os.lseek(descriptor, data, os.SEEK_HOLE) if data < file.size else file.size
    os.lseek(descriptor, 0, os.SEEK_SET)
    return holes
