"""Handles the message for one job: runs it, confirms a request, reaps what a lost runner left, or removes it."""

from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from uuid import UUID

from sqlalchemy.orm import Session

from app.context import Context
from app.db import session_scope
from app.lease import LeaseLost, write
from app.lifecycle import JOB_AWAITS_HOST, JobMove, JobStatus
from app.logs import get_logger
from app.models import Job, Workspace
from app.runtime.jobs.attempt import Attempt
from app.runtime.jobs.turns import offer_slot, why_not_yet
from app.runtime.lease import Lease, Runner, claim
from app.runtime.processes.leaked_processes import kill_leaked_processes
from app.runtime.processes.workdir import WorkDirectory
from app.runtime.rows import lock_for_claim, lock_lapsed, take_lease_away
from app.services import job_steps
from app.services.hosts.rows import RELEASED, each_row
from app.services.job_removal import remove_ended
from app.services.jobs import fail, fail_lost, move
from app.store_identity import why_absent

log = get_logger(__name__)


CONFIRMED = {JobStatus.CANCELLING: JobMove.CONFIRM_CANCEL, JobStatus.PAUSING: JobMove.CONFIRM_PAUSE}
"""Requests that are confirmed at once for a job without a host, because no process of it runs."""


@dataclass(frozen=True)
class _Claimed:
    """A job whose lease this runner holds. If `is_lost`, an earlier runner left it, and it only has to be reaped."""

    job: Job
    workspace: str
    lease: Lease
    is_lost: bool


@dataclass(frozen=True)
class _Waits:
    """A job for which no job slot is free, and why."""

    why: str


def supervise(
    context: Context,
    job_id: UUID,
    *,
    stopping: Event,
    draining: Event | None = None,
    crowded: Event | None = None,
) -> str:
    """Do what a job waits for, if need be for as long as it runs; a summary for the operator.

    Idempotent, so a message may be doubled or late: one supervisor gets the lease and runs the job, all others return
    at once. Starts nothing in a workspace that is being deleted, nor while no job slot is free for it; when it gives
    one back, it enqueues the job whose turn it is. Takes up no job while `draining` or `crowded` is set, and ends the
    job when `stopping` is set. Raises the errors of `remove_ended`, and SQLAlchemy's; the sweep sends another message.
    """
    draining = draining or stopping
    host = Runner.of_this_process(context.settings).host
    claimed = _claim_job(context, job_id, draining, crowded)
    if isinstance(claimed, _Waits):
        offer_slot(context, host)  # to another job, or to this one on another host
        return claimed.why
    if isinstance(claimed, str):
        summary = claimed
    else:
        if not claimed.is_lost:
            offer_slot(context, host)
        try:
            if claimed.is_lost:
                summary = _reap(context, claimed)
            else:
                job, workspace, lease = claimed.job, claimed.workspace, claimed.lease
                summary = Attempt(context, job, workspace, lease, stopping=stopping, draining=draining).run()
        except LeaseLost:
            log.warning("job.lease_lost", job_id=str(job_id), fence=claimed.lease.fence)
            return "the lease was lost; its processes were killed"
        finally:
            offer_slot(context, host)
    if remove_ended(context, job_id):
        return f"{summary}; removed, as requested"
    return summary


def reap(context: Context, job_id: UUID) -> str:
    """Kill the processes that an earlier runner left of a job on this host, without starting any; a summary.

    A job that is supervised, or not on this host, is left alone. Raises SQLAlchemy's errors.
    """
    stopping = Event()
    stopping.set()
    claimed = _claim_job(context, job_id, stopping)
    if isinstance(claimed, _Waits):
        return claimed.why
    if isinstance(claimed, str):
        return claimed
    try:
        return _reap(context, claimed)
    except LeaseLost:
        return "the lease was lost"


def mark_lost(session: Session) -> int:
    """End the jobs whose runners no longer renew their lease as `error`; how many.

    Their hosts stay on record until they have confirmed that no process is left.
    """
    lost = lock_lapsed(session, Job)
    for job in each_row(session, Job, lost):
        log.warning("job.runner_lost", job_id=str(job.id), host=job.host, lease_owner=job.lease_owner)
        fail_lost(session, job)
        take_lease_away(job)
    return len(lost)


def _claim_job(
    context: Context, job_id: UUID, draining: Event, crowded: Event | None = None
) -> _Claimed | _Waits | str:
    """Claim a job that has to be run or reaped; otherwise a summary of what was done without a claim. Commits."""
    # Not below the lock: the first time it needs a connection of its own.
    no_results = _why_no_results(context)
    with session_scope(context.sessions) as session:
        locked = lock_for_claim(session, Job, job_id)
        if locked is None:
            return "gone, nothing to do"
        job, is_active = locked
        is_lost = job.host is not None
        runner = Runner.of_this_process(context.settings)
        if not is_lost:
            if why := _confirm(context, session, job, draining, no_results, is_active=is_active):
                return why
            if crowded and crowded.is_set():
                return f"stays {job.status}, this worker supervises as much as it can"
            if why := why_not_yet(session, context.settings, job, runner.host):
                return _Waits(f"stays {job.status}, {why}")
        lease = claim(session, job, runner, lease_s=context.settings.runtime_lease_seconds)
        if lease is None:
            return f"{job.status}, supervised on host '{job.host}'"
        if is_lost:
            fail_lost(session, job)
        elif job.status is not JobStatus.PENDING:
            move(session, job, JobMove.TAKE_UP)
        return _Claimed(job, session.get_one(Workspace, job.workspace_id).name, lease, is_lost)


def _confirm(
    context: Context,
    session: Session,
    job: Job,
    draining: Event,
    no_results: str | None,
    *,
    is_active: bool,
) -> str | None:
    """Confirm what a job without a host can confirm; why it is not to be claimed, or None if it is."""
    before = job.status
    if job.is_reported and before is not JobStatus.CANCELLING:
        return f"stays {before}, a client runs it and reports its steps"
    if before in CONFIRMED:
        move(session, job, CONFIRMED[before])
        job_steps.settle_last_step(job, job.status)
        return f"{before} → {job.status}, nothing of it runs"
    if before not in JOB_AWAITS_HOST:
        return f"{before}, nothing to do"
    if not is_active:
        return f"stays {before}, its workspace is being deleted"
    if not context.settings.runs_processes:
        fail(session, job, f"this host may not start processes: {context.settings.why_no_processes}")
        return f"{before} → {job.status}, this host may not start processes"
    if draining.is_set():
        return f"stays {before}, this worker is being stopped"
    if no_results:
        log.error("job.store_absent", reason=no_results)
        return f"stays {before}: {no_results}"
    return None


def _why_no_results(context: Context) -> str | None:
    """Why no job is taken up here: its results would be lost, or be stored where nobody finds them."""
    with suppress(OSError):  # One that is away may be back before there are results.
        return why_absent(context.store)
    return None


def _reap(context: Context, claimed: _Claimed) -> str:
    """Kill the processes that an earlier runner left on this host, and release the row. Raises LeaseLost."""
    job = claimed.job
    if not kill_leaked_processes(job.id, within_s=context.settings.stop_grace_seconds):
        log.error("job.processes_remain", job_id=str(job.id))
        return f"{job.status}, processes of a lost runner cannot be killed"
    WorkDirectory(context.settings, job.id).discard()
    with session_scope(context.sessions) as session:
        write(session, Job, job.id, claimed.lease.fence, **RELEASED)
    return f"{job.status}, nothing of it is left here"
