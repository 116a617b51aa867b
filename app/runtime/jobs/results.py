"""What a step has left in its results directory, on its way into the fileset of its job."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.context import Context
from app.errors import BadRequest
from app.models import Fileset, Job
from app.services.job_results import FOLDER
from app.services.workspaces import lock_active_workspace
from app.storage.paths import checked_path

T = TypeVar("T")

_CHUNK = 1024 * 1024


class Unstorable(Exception):
    """There is no place for a result, or its name is one under which nobody could ask for it."""


class Write(Protocol):
    """A transaction in which the job of the results is still held; `first` takes whatever locks come before it."""

    def __call__(
        self, change: Callable[[Session, Job], T], *, first: Callable[[Session], None] | None = None
    ) -> T:
        """What `change` returns."""


class ResultUploader:
    """The place of results: the fileset of their job. `write` is a transaction in which the job is still held."""

    def __init__(self, context: Context, job: Job, write: Write) -> None:
        self._store, self._job, self._write = context.store, job, write

    def clear(self, path: str, on_progress: Callable[[], object]) -> None:
        """Remove the file of that path, and those below it. Raises Unstorable, and as the store does."""
        fileset_id = self._write(self._fileset, first=self._lock_workspace)
        for file in self._store.files(self._job.workspace_id, fileset_id, path):
            on_progress()
            self._store.remove(self._job.workspace_id, fileset_id, file.path)

    def put(self, path: str, chunks: Iterator[bytes], *, size: int) -> None:
        """Store a file of so many bytes. Raises Unstorable, and as the store does."""
        fileset_id = self._write(self._fileset, first=self._lock_workspace)
        staged = self._store.stage(self._job.workspace_id, fileset_id, path, chunks, at_most=size)

        def publish(session: Session, job: Job) -> None:
            if self._fileset(session, job) != fileset_id:
                raise Unstorable(f"the fileset '{job.fileset}' was replaced meanwhile")
            self._store.publish(staged)

        try:
            self._write(publish, first=self._lock_workspace)
        finally:
            self._store.discard(staged)

    def _lock_workspace(self, session: Session) -> None:
        # As for an upload: what is stored in a workspace that is being deleted, its purge might not find.
        if not lock_active_workspace(session, self._job.workspace_id):
            raise Unstorable("the workspace is being deleted")

    def _fileset(self, session: Session, job: Job) -> UUID:
        named = select(Fileset.id).where(
            Fileset.workspace_id == job.workspace_id, Fileset.name == job.fileset
        )
        # FOR SHARE: a fileset that is about to be deleted must not get one more file.
        fileset_id = session.scalar(named.with_for_update(read=True))
        if fileset_id is None:
            raise Unstorable(f"the fileset '{job.fileset}' was deleted")
        return fileset_id


def store_results(
    directory: Path, uploader: ResultUploader, *, on_progress: Callable[[], object]
) -> list[str]:
    """Store what is in `directory` under `results/`, instead of what earlier results of those names left there.

    The names at its top that hold at least one file. Only plain files are stored, and links are not followed.
    Calls `beat` for each file and every megabyte. Raises Unstorable, OSError, and whatever `shelf` and `beat` raise.
    """
    names = []
    for entry in sorted(_entries(directory), key=lambda entry: entry.name):
        files = list(_files(entry))
        if files:
            uploader.clear(f"{FOLDER}/{entry.name}", on_progress)
            names.append(entry.name)
        for path in files:
            _store(path, f"{FOLDER}/{os.path.relpath(path, directory)}", uploader, on_progress)
    return names


def _entries(directory: Path) -> list["os.DirEntry[str]"]:
    if directory.is_symlink() or not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        return list(entries)


def _files(entry: "os.DirEntry[str]") -> Iterator[str]:
    if entry.is_file(follow_symlinks=False):
        yield entry.path
    elif entry.is_dir(follow_symlinks=False):
        for directory, _, names in os.walk(entry.path, onerror=_refuse):
            paths = (os.path.join(directory, name) for name in sorted(names))  # noqa: PTH118 -- may not be UTF-8
            yield from (path for path in paths if stat.S_ISREG(os.lstat(path).st_mode))


def _refuse(error: OSError) -> None:
    raise error


def _store(path: str, key: str, uploader: ResultUploader, on_progress: Callable[[], object]) -> None:
    try:
        checked_path(key)  # Under another name nobody could ask the API for it.
    except BadRequest as error:
        raise Unstorable(f"the result {key!r} cannot be stored: {error.message}") from None
    on_progress()
    # Whatever is in its place by now: a link is not followed, and a pipe not waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Unstorable(f"the result {key!r} is no file any more")
        uploader.put(key, _chunks(file, on_progress), size=found.st_size)


def _chunks(file: BinaryIO, on_progress: Callable[[], object]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        on_progress()
        yield chunk
