"""Removal of an ended job with its log and its fileset, unless that was there before the job."""

from uuid import UUID

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.clock import database_now, seconds_from_now
from app.context import Context
from app.db import session_scope
from app.dispatch import job_message
from app.lifecycle import JOB_TERMINAL
from app.logs import get_logger
from app.models import Fileset, Job, JobLog, Workspace
from app.models.columns import without_documents
from app.models.job import has_status_in
from app.models.workspace import is_active
from app.services.jobs import has_ended, request_deletion
from app.services.logs.removal import remove_last_lines, remove_lines
from app.services.workspaces import lock_active_workspace
from app.storage.purge import BytesRemain

log = get_logger(__name__)

_PURGE_S = 10
"""Time budget for removing files: shorter than the sweep's requeue interval, so that no second worker starts on it."""
_LINES_S = 5
"""The same for the job's own log, and for that of its fileset, to which clients add without a limit."""

_EXPIRED_AT_ONCE = 200
"""As many as the sweep sends messages for."""

_PURGE_LOCKED_S = 5
"""Time budget while locks are held, for files uploaded since."""


def remove_ended(context: Context, job_id: UUID) -> bool:
    """Remove an ended job whose deletion was requested, with its log and its own fileset; whether it was removed.

    False if more files or lines remain than the time budget allows: the next message continues. False in a workspace
    that is being deleted: there the cascade removes jobs. Idempotent; opens its own transactions. Raises OSError or
    BytesRemain if the store fails: the job remains for another attempt.
    """
    with session_scope(context.sessions) as session:
        job = _removable(session, job_id)
        if job is None:
            return False
        # The sweep enqueues the least recently updated job first: a job whose files resist moves behind the others.
        job.updated_at = database_now()
        fileset = _fileset_of(session, job)
    # Outside a transaction: a slow store must not hold the lock that a DELETE of the workspace waits for.
    if fileset and context.store.purge_fileset(fileset.workspace_id, fileset.id, within_s=_PURGE_S):
        return False
    logs = [_own_lines(job_id), *([_lines_in(fileset)] if fileset else [])]
    if not all(remove_lines(context, *which, within_s=_LINES_S) for which in logs):
        return False
    with session_scope(context.sessions) as session:
        job = _removable(session, job_id)
        if job is None:
            return False
        fileset = _fileset_of(session, job)
        if fileset:
            # Once more, now that the lock keeps uploads out: an empty fileset takes no time.
            purge = context.store.purge_fileset
            if purge(fileset.workspace_id, fileset.id, within_s=_PURGE_LOCKED_S):
                return False
            for which in (_lines_in(fileset), _own_lines(job_id)):
                if not remove_last_lines(session, *which):
                    return False
            session.delete(fileset)
        session.delete(job)
    return True


def _removable(session: Session, job_id: UUID) -> Job | None:
    workspace_id = session.scalar(select(Job.workspace_id).where(Job.id == job_id))
    if workspace_id is None or not lock_active_workspace(session, workspace_id):
        return None
    # Locked after the workspace: every transaction locks in this order.
    options = without_documents(Job)
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True, options=options)
    is_due = job is not None and has_ended(job) and job.delete_requested_at is not None
    return job if is_due else None


def _fileset_of(session: Session, job: Job) -> Fileset | None:
    """The fileset that goes with the job; None if it was deleted, or is not the job's own."""
    if job.output_location is not None:
        return None
    # FOR UPDATE: an upload that waits for the row must find it deleted, and not store a file without a fileset.
    query = select(Fileset).where(Fileset.workspace_id == job.workspace_id, Fileset.name == job.fileset)
    return session.scalars(query.with_for_update()).one_or_none()


def _own_lines(job_id: UUID) -> list[ColumnElement[bool]]:
    """Those of all attempts of a job; its lines in a fileset that others use stay there."""
    return [JobLog.job_id == job_id, JobLog.fileset_id.is_(None)]


def _lines_in(fileset: Fileset) -> list[ColumnElement[bool]]:
    return [JobLog.fileset_id == fileset.id]


def delete_job(context: Context, actor: Actor, workspace: str, name: str) -> None:
    """Cancel a job, and remove it now if it has ended; otherwise the runtime removes it. Raises NotFound.

    Opens its own transactions.
    """
    with session_scope(context.sessions) as session:
        job = request_deletion(session, actor, workspace, name)
    try:
        is_removed = has_ended(job) and remove_ended(context, job.id)
    except (OSError, BytesRemain) as error:
        # The row records the request; the runtime tries again until the store answers.
        log.warning("job.removal_postponed", job_id=job.id, error=str(error))
        is_removed = False
    if not is_removed:
        context.publisher.publish(job_message(job.id, job.workspace_id, job.name, job.host))


def expire_ended(session: Session, *, older_than_s: float) -> int:
    """Request the deletion of ended jobs that nobody has changed for so long, some at a time; how many.

    The runtime removes them as after a DELETE; in a workspace that is being deleted the cascade does. Does not commit.
    """
    due = (
        select(Job.id)
        .join(Workspace, Workspace.id == Job.workspace_id)
        .where(
            has_status_in(JOB_TERMINAL),
            Job.updated_at <= seconds_from_now(-older_than_s),
            Job.host.is_(None),
            Job.delete_requested_at.is_(None),
            is_active(),
        )
        .order_by(Job.updated_at)
        .limit(_EXPIRED_AT_ONCE)
        .with_for_update(of=Job, skip_locked=True)  # one that is begun anew at the moment is not due any more
    )
    ids = session.scalars(due).all()
    requested = {"delete_requested_at": database_now(), "updated_at": database_now()}
    session.execute(update(Job).where(Job.id.in_(ids)).values(requested))
    if ids:
        log.info("jobs.expired", number=len(ids))
    return len(ids)
