"""Job slots: how many the hosts that are alive have, who takes them, and for what a job waits.

A job that runs takes a slot of its host. A paused job takes none, nor does a deployment.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from app.config import Settings
from app.health.heartbeat import Process, is_fresh
from app.lifecycle import JOB_AWAITS_HOST, JOB_TAKES_SLOT, JobStatus
from app.models import Heartbeat, Job
from app.models.job import has_status_in

WAITING = "waiting_for"
"""Key in the status details of a job."""

_MOST_COUNTED = 1000


@dataclass(frozen=True)
class Slots:
    """The job slots of a host."""

    number: int
    taken: int

    @property
    def free(self) -> int:
        """How many more jobs may run there."""
        return max(0, self.number - self.taken)

    @property
    def is_full(self) -> bool:
        """Whether no more may."""
        return not self.free


def slots_by_host(session: Session, settings: Settings) -> dict[str, Slots]:
    """The slots of the hosts whose runtime worker is alive and takes up jobs."""
    taken = select(Job.host, func.count().label("number")).where(takes_slot()).group_by(Job.host).subquery()
    query = (
        select(Heartbeat.host, Heartbeat.job_slots, func.coalesce(taken.c.number, 0))
        .outerjoin(taken, taken.c.host == Heartbeat.host)
        .where(Heartbeat.process == Process.RUNTIME, is_fresh(settings), Heartbeat.job_slots > 0)
    )
    return {host: Slots(number, taken) for host, number, taken in session.execute(query)}


def taken_slots(session: Session, *where: ColumnElement[bool]) -> int:
    """How many jobs that fulfil all conditions take a slot."""
    return session.scalar(select(func.count()).where(takes_slot(), *where)) or 0


def older_jobs(session: Session, workspace_id: UUID, job_id: UUID, *, at_most: int) -> int:
    """How many older jobs of its workspace wait as well, counted up to a limit."""
    older = select(Job.id).where(waits(), Job.workspace_id == workspace_id, Job.id < job_id).limit(at_most)
    return session.scalar(select(func.count()).select_from(older.subquery())) or 0


def waiting_jobs(session: Session) -> int:
    """How many jobs wait for a host."""
    return session.scalar(select(func.count()).where(waits())) or 0


def with_reason(session: Session, settings: Settings, job: Job) -> dict[str, Any]:
    """The status details of a job, with what it waits for, if it waits."""
    reason = _why_waiting(session, settings, job)
    return {**job.status_details, WAITING: reason} if reason else job.status_details


def _why_waiting(session: Session, settings: Settings, job: Job) -> str | None:
    """What a job waits for, in the words of its owner; None if for nothing, or if it is about to be taken up."""
    if job.status not in JOB_AWAITS_HOST or (job.host and job.status is not JobStatus.RESUMING):
        return None
    if job.is_reported:
        return None
    hosts = slots_by_host(session, settings)
    if job.host:
        slots = hosts.get(job.host)
        return (
            f"a free job slot: all {slots.number} of its host are taken" if slots and slots.is_full else None
        )
    if not hosts:
        return "a runtime worker: none takes up jobs"
    older = older_jobs(session, job.workspace_id, job.id, at_most=_MOST_COUNTED)
    place = f"{older + 1}" if older < _MOST_COUNTED else f"{older} or later"
    limit, running = settings.jobs_per_workspace, taken_slots(session, Job.workspace_id == job.workspace_id)
    if limit and running >= limit:
        return f"another job of its workspace to end: {running} run, and {limit} may; its place is {place}"
    if all(slots.is_full for slots in hosts.values()):
        number, on = sum(slots.number for slots in hosts.values()), len(hosts)
        where = "the only host" if on == 1 else f"{on} hosts"
        return f"a free job slot: all {number} of {where} are taken; its place in its workspace is {place}"
    return None


def waits() -> ColumnElement[bool]:
    """Whether a job waits for a host, as a condition of a query."""
    return and_(Job.host.is_(None), has_status_in(JOB_AWAITS_HOST), ~Job.is_reported)


def takes_slot() -> ColumnElement[bool]:
    """Whether a job takes a slot of its host, as a condition of a query."""
    return and_(Job.host.is_not(None), has_status_in(JOB_TAKES_SLOT))
