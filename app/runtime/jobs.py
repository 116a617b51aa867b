"""What the runtime does with one job."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import clock
from app.context import Context
from app.db import session_scope
from app.lifecycle import JOB_TERMINAL, JobStatus
from app.models import Fileset, Job
from app.runtime.gate import hold_if_active
from app.services.jobs import move

CONFIRMED = {JobStatus.CANCELLING: JobStatus.CANCELLED, JobStatus.PAUSING: JobStatus.PAUSED}
"""Requests to stop, and what the runtime answers: no process of the job runs."""

TAKEN_UP = {JobStatus.CREATED: JobStatus.PENDING, JobStatus.RESUMING: JobStatus.PENDING}
"""Requests to run, and what the runtime answers: the job waits for an executor."""


def advance(context: Context, job_id: UUID) -> str:
    """Do the next thing that was asked of a job; a sentence for the operator.

    Idempotent, so a ring may be doubled or late. Starts nothing in a workspace that is being deleted.
    Raises as `remove_ended` does; the sweep rings again.
    """
    with session_scope(context.sessions) as session:
        told = _move_on(session, job_id)
    if remove_ended(context, job_id):
        return f"{told}; removed, as requested"
    return told


def remove_ended(context: Context, job_id: UUID) -> bool:
    """Remove a job that has ended and was to be deleted, with its fileset and the bytes in it; whether it did.

    Not in a workspace that is being deleted: there the cascade does it. Idempotent; opens its own
    transactions. Raises OSError or BytesRemain when the store fails: the job stays for another attempt.
    """
    with session_scope(context.sessions) as session:
        job = _removable(session, job_id)
        if job is None:
            return False
        # The sweep rings for the longest untouched first: a job whose bytes resist goes behind the others.
        job.updated_at = clock.now()
        fileset = _fileset_of(session, job)
    if fileset:
        # Outside a transaction: a slow store must not hold the lock that a DELETE of the workspace waits for.
        context.store.purge_fileset(fileset.workspace_id, fileset.id)
    with session_scope(context.sessions) as session:
        job = _removable(session, job_id)
        if job is None:
            return False
        fileset = _fileset_of(session, job)
        if fileset:
            # Once more, now that no upload can come: an empty fileset takes no time.
            context.store.purge_fileset(fileset.workspace_id, fileset.id)
            session.delete(fileset)
        session.delete(job)
    return True


def _removable(session: Session, job_id: UUID) -> Job | None:
    found = session.get(Job, job_id)
    if found is None or not hold_if_active(session, found.workspace_id):
        return None
    # Locked after the workspace, in the order that everybody takes.
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    has_ended = job is not None and job.status in JOB_TERMINAL and job.delete_requested_at is not None
    return job if has_ended else None


def _fileset_of(session: Session, job: Job) -> Fileset | None:
    # FOR UPDATE: an upload waiting for its place must find the fileset gone, not store into the void.
    query = select(Fileset).where(Fileset.workspace_id == job.workspace_id, Fileset.name == job.fileset)
    return session.scalars(query.with_for_update()).one_or_none()


def _move_on(session: Session, job_id: UUID) -> str:
    found = session.get(Job, job_id)
    if found is None:
        return "gone, nothing to do"
    # The workspace first, then the row: the order in which requests take these locks.
    is_active = hold_if_active(session, found.workspace_id)
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        return "gone, nothing to do"
    before = job.status
    if before in CONFIRMED:
        move(session, job, CONFIRMED[before])
        return f"{before} → {job.status}, nothing of it runs"
    if before in TAKEN_UP and is_active:
        move(session, job, TAKEN_UP[before])
        return f"{before} → {job.status}; this release has no executor, the job waits"
    if before in TAKEN_UP:
        return f"stays {before}, its workspace is being deleted"
    return f"{before}, nothing to do"
