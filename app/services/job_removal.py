"""Removing a job that has ended, with its bytes, its log and its fileset."""

from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app import clock
from app.context import Context
from app.db import session_scope
from app.models import Fileset, Job, JobLog
from app.services.jobs import has_ended
from app.services.workspaces import lock_active_workspace

_PURGE_S = 10
"""How long bytes are removed at a time: not so long that the sweep rings, and another does the same."""


_PURGE_LOCKED_S = 5
"""The same while locks are held, of what was uploaded since."""


def remove_ended(context: Context, job_id: UUID) -> bool:
    """Remove a job that has ended and was to be deleted, with its bytes, its log and its fileset; whether it did.

    Not if there are more bytes than can be removed in a few seconds: then it goes on with the next ring. Nor in
    a workspace that is being deleted: there the cascade does it. Idempotent; opens its own
    transactions. Raises OSError or BytesRemain when the store fails: the job stays for another attempt.
    """
    with session_scope(context.sessions) as session:
        job = _removable(session, job_id)
        if job is None:
            return False
        # The sweep rings for the longest untouched first: a job whose bytes resist goes behind the others.
        job.updated_at = clock.now()
        fileset = _fileset_of(session, job)
    # Outside a transaction: a slow store must not hold the lock that a DELETE of the workspace waits for.
    if fileset and context.store.purge_fileset(fileset.workspace_id, fileset.id, within_s=_PURGE_S):
        return False
    while remove_chunk(context, job_id):
        pass
    with session_scope(context.sessions) as session:
        job = _removable(session, job_id)
        if job is None:
            return False
        fileset = _fileset_of(session, job)
        if fileset:
            # Once more, now that no upload can come: an empty fileset takes no time.
            purge = context.store.purge_fileset
            if purge(fileset.workspace_id, fileset.id, within_s=_PURGE_LOCKED_S):
                return False
            session.delete(fileset)
        session.delete(job)
    return True


def _removable(session: Session, job_id: UUID) -> Job | None:
    found = session.get(Job, job_id)
    if found is None or not lock_active_workspace(session, found.workspace_id):
        return None
    # Locked after the workspace, in the order that everybody takes.
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    is_due = job is not None and has_ended(job) and job.delete_requested_at is not None
    return job if is_due else None


def _fileset_of(session: Session, job: Job) -> Fileset | None:
    # FOR UPDATE: an upload waiting for its place must find the fileset gone, not store into the void.
    query = select(Fileset).where(Fileset.workspace_id == job.workspace_id, Fileset.name == job.fileset)
    return session.scalars(query.with_for_update()).one_or_none()


def remove_chunk(context: Context, job_id: UUID) -> int:
    """Remove some lines of the log of a job, of all its attempts; how many. Commits."""
    page = select(JobLog.id).where(JobLog.job_id == job_id).limit(context.settings.chunk_size)
    with session_scope(context.sessions) as session:
        removed = session.execute(
            delete(JobLog).where(JobLog.id.in_(page)).returning(JobLog.id),
            execution_options={"synchronize_session": False},
        )
        return len(removed.all())
