"""Jobs: accepting them, and moving them on request."""

import re
import secrets
import string
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app import clock
from app.access.authorize import Actor
from app.db import insert_unique
from app.errors import NameTaken, NotFound, WrongState
from app.lifecycle import JOB_TERMINAL, JobMove, JobStatus
from app.models import Job, Workspace
from app.services import job_steps
from app.services.filesets import create_fileset
from app.services.projects import require_project
from app.services.workspaces import writable_workspace


def create_job(
    session: Session,
    actor: Actor,
    workspace: str,
    *,
    name: str | None,
    source: str,
    project: str | None,
    **content: Any,
) -> Job:
    """Accept a job, together with the fileset for its results; `content` are the other columns.

    Without a `name` one is made from `source`. Raises NameTaken, and Unprocessable for a missing project.
    """
    home = writable_workspace(session, actor, workspace)
    if project is not None:
        require_project(session, home, project)
    name = name or _name_after(source)
    job = Job(
        workspace_id=home.id,
        name=name,
        source=source,
        project=project,
        fileset=f"job-fileset-{name}",
        created_by=actor.id,
        updated_by=actor.id,
        **content,
    )
    taken = NameTaken(
        f"Job '{name}' already exists in workspace '{workspace}'. "
        "Choose a different job name or delete the existing job before creating a new one."
    )
    insert_unique(session, job, taken=taken)
    create_fileset(session, actor, home, name=job.fileset)
    return job


def request_move(session: Session, actor: Actor, workspace: str, name: str, asked: JobMove) -> Job:
    """Cancel, pause or resume a job; one that `asked` does not lead from stays as it is. Raises NotFound."""
    job = find_job(session, writable_workspace(session, actor, workspace), name, lock=True)
    if job.status in asked.value.before:
        _ask(session, job, asked)
        job.updated_by = actor.id
    return job


def request_deletion(session: Session, actor: Actor, workspace: str, name: str) -> Job:
    """Cancel a job and remember that it is to be removed once it has ended. Raises NotFound."""
    job = request_move(session, actor, workspace, name, JobMove.CANCEL)
    job.delete_requested_at = job.delete_requested_at or clock.now()
    return job


def request_stop(session: Session, job_id: UUID) -> Job | None:
    """Move a job towards its end in a workspace of any state; the job as it is now, None if the row is gone.

    Idempotent. Does not commit, and does not ring.
    """
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is not None and job.status in JobMove.CANCEL.value.before:
        _ask(session, job, JobMove.CANCEL)
    return job


def rerun(session: Session, actor: Actor, workspace: str, name: str) -> Job:
    """Begin a new attempt of a job that has ended; the log and the results of earlier ones stay.

    Raises NotFound, and WrongState while it has not ended, or is about to be deleted.
    """
    job = find_job(session, writable_workspace(session, actor, workspace), name, lock=True)
    refusal = WrongState(
        f"Cannot rerun job '{name}' from '{job.status}': it must have ended, with none of its processes left, "
        "and not be about to be deleted. Refresh the job status and try again."
    )
    _change(
        session,
        job,
        JobMove.RERUN,
        Job.host.is_(None),
        Job.delete_requested_at.is_(None),
        refusal=refusal,
        attempt_id=uuid7(),
        steps=[],
        status_details={},
        error_details=None,
        updated_by=actor.id,
    )
    return job


def has_ended(job: Job) -> bool:
    """Whether a job has come to its end, and its host has seen that no process of it is left."""
    return job.status in JOB_TERMINAL and job.host is None


def fail(session: Session, job: Job, message: str, **facts: Any) -> None:
    """End a job, and the step that has not ended, as `error`. Raises WrongState if it had ended."""
    details = {"message": message, **facts}
    if job.status is JobStatus.PAUSED:
        # The published moves lead from paused to error only by way of resuming.
        move(session, job, JobMove.RESUME)
    move(session, job, JobMove.FAIL)
    job.error_details = details
    job_steps.settle_last_step(job, JobStatus.ERROR, error_details=details)


def _ask(session: Session, job: Job, asked: JobMove) -> None:
    move(session, job, asked)
    if asked is JobMove.CANCEL and job.host is None:
        # No process of it is anywhere, so nobody has to confirm, and nobody must be waited for.
        move(session, job, JobMove.CONFIRM_CANCEL)
        job_steps.settle_last_step(job, JobStatus.CANCELLED)


def find_job(session: Session, home: Workspace, name: str, *, lock: bool = False) -> Job:
    """The job of that name; with `lock` only we can change it until the transaction ends. Raises NotFound."""
    query = select(Job).where(Job.workspace_id == home.id, Job.name == name)
    if lock:
        # Two requests, or a request and the runtime, must not both decide on the same status.
        query = query.with_for_update().execution_options(populate_existing=True)
    job = session.scalars(query).one_or_none()
    if job is None:
        raise NotFound(f"Job '{name}' not found in workspace '{home.name}'.")
    return job


def move(session: Session, job: Job, chosen: JobMove) -> None:
    """Change the status.

    Raises WrongState if the move does not lead from it, and when the row has moved since it was read.
    """
    refusal = WrongState(
        f"Cannot move job '{job.name}' from '{job.status}' to '{chosen.value.after}'. "
        "Refresh the job status and try again."
    )
    _change(session, job, chosen, Job.status == job.status, refusal=refusal)


def _change(
    session: Session,
    job: Job,
    chosen: JobMove,
    *guards: ColumnElement[bool],
    refusal: WrongState,
    **values: Any,
) -> None:
    """The only writer of the status of a job."""
    changed = (
        update(Job)
        .where(Job.id == job.id, Job.status.in_(chosen.value.before), *guards)
        .values(status=chosen.value.after, updated_at=clock.now(), **values)
    )
    if session.execute(changed.returning(Job.id)).one_or_none() is None:
        raise refusal


def _name_after(source: str) -> str:
    """`<source>-<8 random characters>`, with whatever no name may contain replaced or left out."""
    stem = re.sub(r"[^a-z0-9]+", "-", source[:20].lower()).lstrip("-0123456789").rstrip("-") or "job"
    letters = string.ascii_lowercase + string.digits
    return f"{stem}-{''.join(secrets.choice(letters) for _ in range(8))}"
