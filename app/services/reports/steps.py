"""Reports of the steps of a job by a client, which may run the job itself: then its status follows them."""

from typing import Any

from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.lifecycle import JOB_TERMINAL, JobMove, JobStatus, StepMove, published_move
from app.models import Job
from app.services import job_steps
from app.services.jobs import move

_TOWARDS_THE_END: dict[JobStatus, JobMove | StepMove] = {
    JobStatus.CREATED: StepMove.REPORT_ACTIVE,
    JobStatus.PAUSING: JobMove.CONFIRM_PAUSE,
    JobStatus.PAUSED: StepMove.REPORT_ACTIVE,
    JobStatus.RESUMING: JobMove.CONFIRM_RESUME,
}
"""By what a job goes on from which no published move leads to the end that its step has come to."""


def report_and_follow(
    session: Session,
    actor: Actor,
    job: Job,
    step: str,
    status: JobStatus,
    **details: dict[str, Any] | None,
) -> None:
    """Set the status of a step of a locked job, and let that of the job follow if no host has it.

    Raises as `job_steps.report_step` does.
    """
    entry = job_steps.report_step(job, step, status, by=actor.id, **details)
    if job.host is None and job.status not in JOB_TERMINAL:
        job.is_reported = True
        if job.steps[-1]["name"] == step:
            _follow(session, job, entry)


def _follow(session: Session, job: Job, step: job_steps.Entry) -> None:
    """Move the job as its current step has moved. A request that waits is undone only by the end."""
    after = JobStatus(step["status"])
    if after is JobStatus.COMPLETED and (following := _next_step(job)):
        job_steps.begin_reported_step(job, following)
        after = JobStatus.ACTIVE
    session.flush()  # a move reads the row anew
    while after in JOB_TERMINAL and not published_move(job.status, after):
        move(session, job, _TOWARDS_THE_END[job.status])
    if chosen := published_move(job.status, after):
        move(session, job, chosen)
    if after is JobStatus.ERROR:
        job.error_details = step["error_details"] or {
            "message": f"step '{step['name']}' was reported as error"
        }


def _next_step(job: Job) -> str | None:
    names = [spec["name"] for spec in job.platform_spec["steps"]]
    behind: list[str] = names[len(job.steps) :]
    return behind[0] if behind else None
