"""Stores the results of a job in its fileset."""

from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.context import Context
from app.lifecycle import JobStatus
from app.models import Fileset, Job
from app.runtime.leased_row import LeasedRow
from app.runtime.processes.workdir import OnProgress
from app.services.workspaces import lock_active_workspace


class Unstorable(Exception):
    """No result can be stored any more, because the fileset or the job goes; the message says which."""


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
        is_published = False

        def publish(session: Session, job: Job) -> None:
            nonlocal is_published
            if self._fileset(session, job) != fileset_id:
                raise Unstorable(f"the fileset '{job.fileset}' was replaced meanwhile")
            if not is_published:  # before a commit of which nobody knows whether it succeeded
                self._store.publish(staged)
                is_published = True

        try:
            self._row.write(publish, first=self._lock_workspace)
        finally:
            self._store.discard(staged)

    def _lock_workspace(self, session: Session) -> None:
        # As for an upload: the purge of a workspace that is being deleted might miss a file stored now.
        if not lock_active_workspace(session, self._job.workspace_id):
            raise Unstorable("the workspace is being deleted")

    def _fileset(self, session: Session, job: Job) -> UUID:
        if job.delete_requested_at is not None:
            raise Unstorable("the job is being deleted")
        named = select(Fileset.id).where(
            Fileset.workspace_id == job.workspace_id, Fileset.name == job.fileset
        )
        # FOR SHARE: a fileset that is about to be deleted must not get one more file.
        fileset_id = session.scalar(named.with_for_update(read=True))
        if fileset_id is None:
            raise Unstorable(f"the fileset '{job.fileset}' was deleted")
        return fileset_id
