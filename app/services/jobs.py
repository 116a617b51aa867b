"""Jobs: creating them, and changing their status on request."""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.access.authorize import Actor
from app.clock import database_now
from app.db import insert_unique
from app.errors import NameTaken, NotFound, TooLarge, Unprocessable, WrongState
from app.lifecycle import JOB_TERMINAL, JobMove, JobStatus, StepMove
from app.models import Job, Workspace
from app.models.columns import without_documents
from app.services import job_steps
from app.services.filesets import OF_JOB, create_fileset, find_fileset, require_output
from app.services.names import generated_name
from app.services.projects import require_project
from app.services.secrets.references import secret_access
from app.services.workspaces import readable_workspace, writable_workspace


def create_job(
    session: Session,
    actor: Actor,
    workspace: str,
    *,
    name: str | None,
    source: str,
    project: str | None,
    platform_spec: dict[str, Any],
    output_location: str | None = None,
    **content: Any,
) -> Job:
    """Create a job and the fileset for its results, unless `output_location` names one; `content` are other columns.

    Without a `name`, one is generated from `source`. Raises NameTaken, Unprocessable for a missing project and for an
    `output_location` that is missing, goes with another job, or may not be written by the actor, and as
    `secret_access` does.
    """
    workspace_row = writable_workspace(session, actor, workspace)
    if project is not None:
        require_project(session, workspace_row, project)
    if output_location is not None:
        require_output(session, actor, workspace_row, output_location)
    name = name or generated_name(source[:20], fallback="job", random_characters=8)
    job = Job(
        workspace_id=workspace_row.id,
        name=name,
        source=source,
        project=project,
        fileset=output_location or f"{OF_JOB}{name}",
        output_location=output_location,
        platform_spec=platform_spec,
        secret_access=secret_access(session, actor, workspace_row, platform_spec["steps"], asked="create"),
        created_by=actor.id,
        updated_by=actor.id,
        **content,
    )
    taken = NameTaken(
        f"Job '{name}' already exists in workspace '{workspace}'. "
        "Choose a different job name or delete the existing job before creating a new one."
    )
    job = insert_unique(session, job, taken=taken)
    if output_location is None:
        create_fileset(session, actor, workspace_row, name=job.fileset)
    return job


def request_move(session: Session, actor: Actor, workspace: str, name: str, requested: JobMove) -> Job:
    """Cancel, pause or resume a job; it stays unchanged in a status that has no such move. Raises NotFound."""
    job = find_job(session, writable_workspace(session, actor, workspace), name, lock=True)
    if _request(session, job, requested):
        job.updated_by = actor.id
    return job


def request_deletion(session: Session, actor: Actor, workspace: str, name: str) -> Job:
    """Cancel a job and request its removal, which follows once it has ended. Raises NotFound."""
    job = request_move(session, actor, workspace, name, JobMove.CANCEL)
    job.delete_requested_at = job.delete_requested_at or database_now()
    return job


def request_stop(session: Session, job_id: UUID) -> tuple[Job | None, bool]:
    """Cancel a job in a workspace of any state: its row, or None if there is none, and whether that changed it.

    Idempotent. Does not commit and publishes no message.
    """
    options = without_documents(Job)
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True, options=options)
    if job is None:
        return None, False
    return job, _request(session, job, JobMove.CANCEL)


def rerun(session: Session, actor: Actor, workspace: str, name: str) -> Job:
    """Begin a new attempt of an ended job; the log and the results of earlier attempts stay.

    Raises NotFound, WrongState before the job has ended, after its deletion was requested, or if the fileset for its
    results is not its own, and was deleted or may not be written by the actor; and as `secret_access` does: from now on
    the job uses secrets in the name of `actor`.
    """
    workspace_row = writable_workspace(session, actor, workspace)
    job = find_job(session, workspace_row, name, lock=True)
    wrong_state = WrongState(
        f"Cannot rerun job '{name}' from '{job.status}': the job must have ended, with none of its processes "
        "left, and without a request to delete it. Refresh the job status and try again."
    )
    _change(
        session,
        job,
        JobMove.RERUN,
        Job.host.is_(None),
        Job.delete_requested_at.is_(None),
        wrong_state=wrong_state,
        attempt_id=uuid7(),
        steps=[],
        is_reported=False,
        status_details={},
        error_details=None,
        secret_access=secret_access(session, actor, workspace_row, job.platform_spec["steps"], asked="rerun"),
        updated_by=actor.id,
    )
    if job.output_location is not None:
        _require_output_again(session, actor, workspace_row, job)
    return job


def _require_output_again(session: Session, actor: Actor, workspace: Workspace, job: Job) -> None:
    """Lock the fileset of a job that is about to write to it again; it may be another one of that name.

    Raises WrongState if it was deleted, or could not be named by the actor for a new job.
    """
    try:
        find_fileset(session, workspace, job.fileset)
        require_output(session, actor, workspace, job.fileset)
    except NotFound:
        raise WrongState(
            f"Cannot rerun job '{job.name}': its output_location, the fileset '{job.fileset}', was deleted. "
            "Create it again."
        ) from None
    except Unprocessable as error:
        raise WrongState(f"Cannot rerun job '{job.name}': {error.message}") from None


def has_ended(job: Job) -> bool:
    """Whether the status of a job is final and its host has seen that none of its processes is left."""
    return job.status in JOB_TERMINAL and job.host is None


def fail(session: Session, job: Job, message: str, **facts: Any) -> None:
    """End a job, and its unfinished step, as `error`. Raises WrongState if the job has ended already."""
    details = {"message": message, **facts}
    if job.status is JobStatus.PAUSED:
        # The published moves lead from paused to error only through resuming.
        move(session, job, JobMove.RESUME)
    move(session, job, JobMove.FAIL)
    job.error_details = details
    job_steps.settle_last_step(job, JobStatus.ERROR, error_details=details)


def fail_lost(session: Session, job: Job) -> None:
    """End a job as `error` because its runner is lost, unless it had ended."""
    if job.status not in JOB_TERMINAL:
        fail(session, job, f"runner lost: the job was {job.status} on host '{job.host}'")


def _request(session: Session, job: Job, requested: JobMove) -> bool:
    """Whether that changes the job."""
    changes = job.status in requested.value.before
    if changes:
        move(session, job, requested)
    if requested is JobMove.CANCEL and job.status is JobStatus.CANCELLING and job.host is None:
        # No host has a process of it, so no runtime worker has to confirm its end. A client that has reported that it
        # is cancelling may never report more.
        move(session, job, JobMove.CONFIRM_CANCEL)
        job_steps.settle_last_step(job, JobStatus.CANCELLED)
        return True
    return changes


def find_job(session: Session, workspace: Workspace, name: str, *, lock: bool = False) -> Job:
    """The job of that name; `lock` keeps others from changing it until the transaction ends. Raises NotFound."""
    query = select(Job).where(Job.workspace_id == workspace.id, Job.name == name)
    if lock:
        # Two requests, or a request and the runtime, must not decide from the same status at the same time.
        query = query.with_for_update().execution_options(populate_existing=True)
    job = session.scalars(query).one_or_none()
    if job is None:
        raise NotFound(f"Job '{name}' not found in workspace '{workspace.name}'.")
    return job


def move(session: Session, job: Job, chosen: JobMove | StepMove) -> None:
    """Change the status.

    Raises WrongState if the status has no such move, and if it has changed since the row was read.
    """
    wrong_state = WrongState(
        f"Cannot move job '{job.name}' from '{job.status}' to '{chosen.value.after}'. "
        "Refresh the job status and try again."
    )
    _change(session, job, chosen, Job.status == job.status, wrong_state=wrong_state)


def _change(
    session: Session,
    job: Job,
    chosen: JobMove | StepMove,
    *guards: ColumnElement[bool],
    wrong_state: WrongState,
    **values: Any,
) -> None:
    """The only writer of the status of a job."""
    changed = (
        update(Job)
        .where(Job.id == job.id, Job.status.in_(chosen.value.before), *guards)
        .values(status=chosen.value.after, updated_at=database_now(), **values)
        .returning(Job)
    )
    if session.scalars(changed, execution_options={"populate_existing": True}).one_or_none() is None:
        raise wrong_state


def touch(session: Session, actor: Actor, job: Job) -> None:
    """Note who has changed a job otherwise than by a move. The sweep goes by the time: it is the database's."""
    job.updated_at, job.updated_by = database_now(), actor.id
    session.flush()  # before that the time is an expression


def note_report(session: Session, actor: Actor, job: Job, *, max_bytes: int) -> None:
    """As `touch`, after a report that was added to earlier ones: they are part of the job's row, and of every list.

    Raises TooLarge if the status details of the job have more than `max_bytes` as JSON, or its steps with their tasks
    more than twice as many, which leaves room for the largest report beside others.
    """
    for what, document, limit in (
        ("status details", job.status_details, max_bytes),
        ("steps with their tasks", job.steps, 2 * max_bytes),
    ):
        size = len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())
        if size > limit:
            raise TooLarge(
                f"The {what} of job '{job.name}' would have {size} bytes, more than the {limit} that are kept. "
                "Report less, or overwrite earlier reports by null first."
            )
    touch(session, actor, job)


def readable_job(session: Session, actor: Actor, workspace: str, name: str) -> Job:
    """The job of that name, to be read. Raises NotFound, and as `readable_workspace` does."""
    return find_job(session, readable_workspace(session, actor, workspace), name)


def writable_job(session: Session, actor: Actor, workspace: str, name: str) -> Job:
    """The job of that name, locked for a change. Raises NotFound, and as `writable_workspace` does."""
    return find_job(session, writable_workspace(session, actor, workspace), name, lock=True)
