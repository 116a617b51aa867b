"""Whose turn a free job slot is, and the messages by which the job gets it.

A free slot goes to the workspace in which the fewest jobs run, and there to the oldest job that waits. Nothing that
runs is stopped for another, and a slot stays free only while nobody waits.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, SQLColumnExpression, func, literal, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.dispatch import Message, runtime_queue, turn_message
from app.health.capacity import Slots, older_jobs, slots_by_host, taken_slots, takes_slot, waits
from app.lifecycle import JobStatus
from app.logs import explain, get_logger
from app.models import Job, Workspace
from app.models.workspace import is_active
from app.runtime.rows import lock_slots

log = get_logger(__name__)

_WORKSPACES_COMPARED = 500
"""How many workspaces with waiting jobs are compared for a slot, from a random one on."""


@dataclass(frozen=True)
class _Turn:
    """A job that waits, and may have the next slot."""

    id: UUID
    workspace_id: UUID
    name: str


def why_not_yet(session: Session, settings: Settings, job: Job, host: str) -> str | None:
    """Why a job that the caller has locked cannot begin on `host`; None if a slot is free for it.

    Until the transaction ends, no other job can take the slot.
    """
    lock_slots(session)
    slots = slots_by_host(session, settings)
    here = Slots(settings.runtime_job_slots, taken_slots(session, Job.host == host))
    if here.is_full:
        return f"all {here.number} job slots of host '{host}' are taken"
    running = taken_slots(session, Job.workspace_id == job.workspace_id)
    if settings.jobs_per_workspace and running >= settings.jobs_per_workspace:
        return f"{running} jobs of its workspace run, and {settings.jobs_per_workspace} may"
    free = sum(one.free for one in {**slots, host: here}.values())
    before = older_jobs(session, job.workspace_id, job.id, at_most=free)
    if before < free:
        before += _entitled_before(session, settings, job.workspace_id, running)
    return f"{free} job slots are free, and {before} jobs come first" if before >= free else None


def may_go_on(session: Session, settings: Settings, job: Job) -> bool:
    """Whether a slot of its host is free for a job that was paused. Such jobs come before all that have not begun.

    Until the transaction ends, no other job can take the slot.
    """
    lock_slots(session)
    others = taken_slots(session, Job.host == job.host, Job.status != JobStatus.RESUMING)
    return others < settings.runtime_job_slots


def offer_slot(context: Context, host: str) -> None:
    """Enqueue the job whose turn it is, if a slot is free: on this host, or else on the one with the most.

    Raises nothing: if its message is lost, or the database is away, the sweep sends another.
    """
    settings = context.settings
    try:
        with session_scope(context.sessions) as session:
            here = Slots(settings.runtime_job_slots, taken_slots(session, Job.host == host))
            free = {
                name: slots.free for name, slots in slots_by_host(session, settings).items() if slots.free
            } | {host: here.free}
            place = host if here.free else max(free, key=lambda name: free[name])
            turns = _next_turns(session, settings, at_most=1) if free[place] else []
    except SQLAlchemyError as error:
        log.warning("runtime.slot_not_offered", error=explain(error))
        return
    for turn in turns:
        context.publisher.publish(_message(turn, place))


def messages_for_free_slots(session: Session, context: Context) -> list[Message]:
    """The messages for jobs that wait although slots are free: one for each workspace, to hosts whose queues are empty.

    A host starts further jobs by itself, once it has these.
    """
    settings = context.settings
    free = {host: slots.free for host, slots in slots_by_host(session, settings).items() if slots.free}
    turns = _next_turns(session, settings, at_most=sum(free.values())) if free else []
    if not turns:
        return []
    hosts = [host for host in free if context.publisher.is_empty(runtime_queue(host))]
    places = [host for number in range(max(free.values())) for host in hosts if number < free[host]]
    return [_message(turn, host) for turn, host in zip(turns, places, strict=False)]


def _message(turn: _Turn, host: str) -> Message:
    return turn_message(turn.id, turn.workspace_id, turn.name, host)


def _next_turns(session: Session, settings: Settings, *, at_most: int) -> list[_Turn]:
    """The oldest job of each workspace that waits, those of the workspaces in which the fewest run first."""
    oldest = (
        select(Job.id)
        .where(waits(), Job.workspace_id == Workspace.id)
        .order_by(Job.id)
        .limit(1)
        .correlate(Workspace)
        .scalar_subquery()
    )
    entitled = _entitled(session, settings, oldest.label("job_id")).subquery()
    query = (
        select(Job.id, Job.workspace_id, Job.name)
        .join(entitled, entitled.c.job_id == Job.id)
        .order_by(entitled.c.running, Job.id)
        .limit(at_most)
    )
    return [_Turn(*row) for row in session.execute(query)]


def _entitled_before(session: Session, settings: Settings, workspace_id: UUID, running: int) -> int:
    """In how many other workspaces with waiting jobs fewer than `running` jobs run."""
    if not running:
        return 0
    entitled = _entitled(session, settings, Workspace.id).subquery()
    query = select(func.count()).where(entitled.c.id != workspace_id, entitled.c.running < running)
    return session.scalar(query) or 0


def _entitled(session: Session, settings: Settings, column: SQLColumnExpression[UUID]) -> Any:
    """The query for `column` and the number of running jobs, of workspaces with waiting jobs that may run one more."""
    jobs = (
        select(Job.workspace_id, func.count().label("number"))
        .where(takes_slot())
        .group_by(Job.workspace_id)
        .subquery()
    )
    running = func.coalesce(jobs.c.number, 0)
    query = (
        select(column, running.label("running"))
        .select_from(Workspace)
        .outerjoin(jobs, jobs.c.workspace_id == Workspace.id)
        .where(Workspace.id.in_(_waiting_workspaces(session)), is_active())
    )
    limit = settings.jobs_per_workspace
    return query.where(running < limit) if limit else query


def _waiting_workspaces(session: Session) -> list[UUID]:
    """Workspaces with waiting jobs, a few hundred at most: each costs one look into an index, whatever waits there."""
    start = uuid4()
    found = _scan(session, Job.workspace_id >= start)
    return (
        found
        if len(found) == _WORKSPACES_COMPARED
        else list({*found, *_scan(session, Job.workspace_id < start)})
    )


def _scan(session: Session, part: ColumnElement[bool]) -> list[UUID]:
    lowest = select(Job.workspace_id).where(waits(), part).order_by(Job.workspace_id).limit(1)
    scan = select(lowest.scalar_subquery().label("id"), literal(1).label("number")).cte(
        "scan", recursive=True
    )
    following = lowest.where(Job.workspace_id > scan.c.id).correlate(scan).scalar_subquery()
    scan = scan.union_all(
        select(following, scan.c.number + 1).where(
            scan.c.id.is_not(None), scan.c.number < _WORKSPACES_COMPARED
        )
    )
    return list(session.scalars(select(scan.c.id).where(scan.c.id.is_not(None))))
