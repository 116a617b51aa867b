"""What the runtime does with one job when it is rung for: take it up, bury it, or remove it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import clock
from app.context import Context
from app.db import session_scope
from app.lease import LeaseLost, has_lapsed, write
from app.lifecycle import JOB_TERMINAL, JobMove, JobStatus
from app.logs import get_logger
from app.models import Job, Workspace
from app.runtime.jobs.attempt import Attempt
from app.runtime.lease import RELEASED, Runner, claim
from app.runtime.processes.leaked_processes import kill_leaked_processes
from app.runtime.processes.workdir import WorkDirectory
from app.services import job_steps
from app.services.job_removal import remove_ended
from app.services.jobs import fail, move
from app.services.workspaces import lock_active_workspace

log = get_logger(__name__)


CONFIRMED = {JobStatus.CANCELLING: JobMove.CONFIRM_CANCEL, JobStatus.PAUSING: JobMove.CONFIRM_PAUSE}
"""What may be asked of a job that no host has, and the answer: no process of it runs."""

TAKEN_UP = frozenset({JobStatus.CREATED, JobStatus.PENDING, JobStatus.RESUMING})
"""In which a job that no host has waits for one."""

_LOST_AT_ONCE = 200  # Bounds the transaction; the next sweep marks the rest.


@dataclass(frozen=True)
class _Claimed:
    """A job that this runner holds. `is_lost` if an earlier runner has left it: then it only has to be buried."""

    job: Job
    workspace: str
    fence: int
    is_lost: bool


def supervise(context: Context, job_id: UUID, *, stopping: Event) -> str:
    """Do what a job waits for, if need be for as long as it runs; a sentence for the operator.

    Idempotent, so a ring may be doubled or late: whoever gets the lease runs the job, all others return at once.
    Starts nothing in a workspace that is being deleted. Ends the job when `stopping` is set. Raises as
    `remove_ended` does, and SQLAlchemy's errors; the sweep rings again.
    """
    taken = _claim_job(context, job_id, stopping)
    if isinstance(taken, str):
        summary = taken
    else:
        try:
            summary = _reap(context, taken) if taken.is_lost else _attempt(context, taken, stopping)
        except LeaseLost:
            log.warning("job.lease_lost", job_id=str(job_id), fence=taken.fence)
            return "the lease was lost; what had been started was killed"
    if remove_ended(context, job_id):
        return f"{summary}; removed, as requested"
    return summary


def reap(context: Context, job_id: UUID) -> str:
    """Kill what an earlier runner has left of a job on this host, and do nothing else; a sentence for the operator.

    A job that is supervised, or not here, is left alone. Raises SQLAlchemy's errors.
    """
    nothing_new = Event()
    nothing_new.set()
    taken = _claim_job(context, job_id, nothing_new)
    if isinstance(taken, str):
        return taken
    try:
        return _reap(context, taken)
    except LeaseLost:
        return "the lease was lost"


def mark_lost(session: Session, *, now: datetime) -> int:
    """End the jobs whose runners have gone silent as `error`; how many.

    Their hosts stay on record, until they have seen that no process is left: then they clear it.
    """
    lapsed = (
        select(Job)
        .where(Job.host.is_not(None), has_lapsed(Job, now))
        .order_by(Job.lease_until)
        .limit(_LOST_AT_ONCE)
        .with_for_update(skip_locked=True)  # two sweeps share the work instead of waiting for each other
    )
    lost = session.scalars(lapsed.execution_options(populate_existing=True)).all()
    for job in lost:
        log.warning("job.runner_lost", job_id=str(job.id), host=job.host, lease_owner=job.lease_owner)
        fail_lost(session, job)
        job.lease_owner = job.lease_until = None
        job.fence += 1  # Should the runner wake up, it must find that it has nothing to write any more.
    return len(lost)


def _claim_job(context: Context, job_id: UUID, stopping: Event) -> _Claimed | str:
    """Claim a job that has to be run or buried; otherwise what there was to do, or not."""
    with session_scope(context.sessions) as session:
        found = session.get(Job, job_id)
        if found is None:
            return "gone, nothing to do"
        # The workspace first, then the row: the order in which requests take these locks.
        is_active = lock_active_workspace(session, found.workspace_id)
        job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
        if job is None:
            return "gone, nothing to do"
        is_lost = job.host is not None
        if not is_lost and (why := _why_not(context, session, job, stopping, is_active=is_active)):
            return why
        lasting = timedelta(seconds=context.settings.runtime_lease_seconds)
        fence = claim(job, Runner.of_this_process(context.settings), now=clock.now(), lasting=lasting)
        if fence is None:
            return f"{job.status}, supervised on host '{job.host}'"
        if is_lost:
            fail_lost(session, job)
        elif job.status is not JobStatus.PENDING:
            move(session, job, JobMove.TAKE_UP)
        return _Claimed(job, session.get_one(Workspace, job.workspace_id).name, fence, is_lost)


def _why_not(context: Context, session: Session, job: Job, stopping: Event, *, is_active: bool) -> str | None:
    """Why a job that no host has is not taken up. What can be confirmed without a process, is."""
    before = job.status
    if before in CONFIRMED:
        move(session, job, CONFIRMED[before])
        job_steps.settle_last_step(job, job.status)
        return f"{before} → {job.status}, nothing of it runs"
    if before not in TAKEN_UP:
        return f"{before}, nothing to do"
    if not is_active:
        return f"stays {before}, its workspace is being deleted"
    if not context.settings.runs_processes:
        fail(session, job, "this host may not start processes: WORKSPACES_SUBPROCESS_PROVIDER is off")
        return f"{before} → {job.status}, this host may not start processes"
    if stopping.is_set():
        return f"stays {before}, this worker is being stopped"
    return None


def fail_lost(session: Session, job: Job) -> None:
    """End a job, unless it had ended, as the `error` that its runner is lost."""
    if job.status not in JOB_TERMINAL:
        before = job.status
        fail(session, job, f"runner lost: the job was {before} on host '{job.host}'")


def _attempt(context: Context, claimed: _Claimed, stopping: Event) -> str:
    return Attempt(context, claimed.job, claimed.workspace, claimed.fence, stopping).run()


def _reap(context: Context, claimed: _Claimed) -> str:
    """Kill what an earlier runner on this host left behind, and say that nothing is left. Raises LeaseLost."""
    job = claimed.job
    if not kill_leaked_processes(job.id, within_s=context.settings.stop_grace_seconds):
        log.error("job.processes_remain", job_id=str(job.id))
        return f"{job.status}, processes of a lost runner cannot be killed"
    WorkDirectory(context.settings, job.id).discard()
    with session_scope(context.sessions) as session:
        write(session, Job, job.id, claimed.fence, **RELEASED)
    return f"{job.status}, nothing of it is left here"
