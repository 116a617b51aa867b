"""Stores the files that a step left in its results directory in the fileset of its job."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.context import Context
from app.errors import BadRequest
from app.lifecycle import JobStatus
from app.models import Fileset, Job
from app.runtime.leased_row import LeasedRow
from app.runtime.processes.workdir import OnProgress
from app.services.job_results import FOLDER
from app.services.workspaces import lock_active_workspace
from app.storage.paths import checked_path

_CHUNK = 1024 * 1024


class Unstorable(Exception):
    """A result has no fileset to go to, or a name that the API could not serve; the message says which."""


class ResultUploader:
    """Uploads results to the fileset of their job, in transactions that renew the lease of the job."""

    def __init__(self, context: Context, job: Job, row: LeasedRow[Job, JobStatus]) -> None:
        self._store, self._job, self._row = context.store, job, row

    def clear(self, path: str, on_progress: OnProgress) -> None:
        """Remove the file of that path, and those below it. Raises Unstorable, LeaseLost, and the store's errors."""
        fileset_id = self._row.write(self._fileset, first=self._lock_workspace)
        for file in self._store.files(self._job.workspace_id, fileset_id, path):
            on_progress()
            self._store.remove(self._job.workspace_id, fileset_id, file.path)

    def put(self, path: str, chunks: Iterator[bytes], *, size: int) -> None:
        """Store a file of so many bytes. Raises Unstorable, LeaseLost, and the store's errors."""
        fileset_id = self._row.write(self._fileset, first=self._lock_workspace)
        staged = self._store.stage(self._job.workspace_id, fileset_id, path, chunks, at_most=size)

        def publish(session: Session, job: Job) -> None:
            if self._fileset(session, job) != fileset_id:
                raise Unstorable(f"the fileset '{job.fileset}' was replaced meanwhile")
            self._store.publish(staged)

        try:
            self._row.write(publish, first=self._lock_workspace)
        finally:
            self._store.discard(staged)

    def _lock_workspace(self, session: Session) -> None:
        # As for an upload: the purge of a workspace that is being deleted might miss a file stored now.
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


def store_results(directory: Path, uploader: ResultUploader, *, on_progress: OnProgress) -> list[str]:
    """Store the files in `directory` under `results/`, replacing earlier results of the same names.

    Returns the names at its top that hold at least one file. Only regular files are stored, and links are not
    followed. Calls `on_progress` for each file and every megabyte. Raises Unstorable, OSError, and the errors of
    `uploader` and `on_progress`.
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
        for directory, _, names in os.walk(entry.path, onerror=_reraise):
            paths = (os.path.join(directory, name) for name in sorted(names))  # noqa: PTH118 -- may not be UTF-8
            yield from (path for path in paths if stat.S_ISREG(os.lstat(path).st_mode))


def _reraise(error: OSError) -> None:
    raise error


def _store(path: str, key: str, uploader: ResultUploader, on_progress: OnProgress) -> None:
    try:
        checked_path(key)  # The API serves no other paths.
    except BadRequest as error:
        raise Unstorable(f"the result {key!r} cannot be stored: {error.message}") from None
    on_progress()
    # Something else may be in its place by now: a link is not followed, and a pipe is not waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Unstorable(f"the result {key!r} is not a file any more")
        uploader.put(key, _chunks(file, on_progress), size=found.st_size)


def _chunks(file: BinaryIO, on_progress: OnProgress) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        on_progress()
        yield chunk
