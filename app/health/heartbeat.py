"""Heartbeats: each process that works by itself notes in the database that it is alive."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from threading import Event, Thread

from sqlalchemy import ColumnElement, CompoundSelect, Select, exists, func, select, union
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.clock import database_now, seconds_from_now
from app.config import Settings
from app.db import Sessions, connect, session_scope, sessions_of
from app.health.rejections import Rejections
from app.logs import explain, get_logger
from app.models import Deployment, Heartbeat, Job, Subscription

log = get_logger(__name__)

_MISSED = 3
"""Heartbeats after whose absence a process counts as silent."""

LONG_SILENT_S = 3600.0
"""After this time a process is shown no more, and a host gets no more messages."""


class Process(StrEnum):
    """A process that works by itself, by its name in `/status` and `/metrics`."""

    BEAT = "beat"
    MAINTENANCE = "maintenance"
    CLEANUP = "cleanup"
    NOTIFY = "notify"
    RUNTIME = "runtime"


def start_heart(
    settings: Settings,
    process: Process,
    hosts: Iterable[str],
    *,
    rejected: Rejections | None = None,
    job_slots: Callable[[], int] = lambda: 0,
) -> Event:
    """Note every few seconds, in a thread with a connection of its own, that `process` is alive on `hosts`.

    It ends with the process, or once the event is set. A database that is away is waited for. Noted as well: the
    messages that the process has `rejected`, and the `job_slots` that its first host has just now.
    """
    stop = Event()
    of_its_own = settings.model_copy(update={"database_pool_size": 1})
    sessions = sessions_of(connect(of_its_own))
    heart = _Heart(process, list(hosts), rejected, job_slots)
    beating = (sessions, heart, settings.sweep_seconds, stop)
    Thread(target=_beat, args=beating, name="heartbeat", daemon=True).start()
    return stop


@dataclass(frozen=True)
class _Heart:
    process: Process
    hosts: list[str]
    rejected: Rejections | None
    job_slots: Callable[[], int]


def _beat(sessions: Sessions, heart: _Heart, every_s: float, stop: Event) -> None:
    is_noted = True
    while True:
        number = heart.rejected.take() if heart.rejected else 0
        try:
            with session_scope(sessions) as session:
                note_alive(session, heart.process, heart.hosts, rejected=number, job_slots=heart.job_slots())
            is_noted = True
        except SQLAlchemyError as error:
            if heart.rejected:
                heart.rejected.add(number)
            if is_noted:  # once for each outage
                log.warning("heartbeat.not_noted", process=heart.process.value, error=explain(error))
            is_noted = False
        if stop.wait(every_s):
            return


def note_alive(
    session: Session, process: Process, hosts: Iterable[str], *, rejected: int = 0, job_slots: int = 0
) -> None:
    """Note that `process` is alive on `hosts`, has rejected so many more messages, and on its first host so many slots.

    Does not commit.
    """
    rows = [
        {
            "process": process.value,
            "host": host,
            "heartbeat_at": database_now(),
            "messages_rejected": 0 if number else rejected,
            "job_slots": 0 if number else job_slots,
        }
        for number, host in enumerate(hosts)
    ]
    alive = insert(Heartbeat).values(rows)
    session.execute(
        alive.on_conflict_do_update(
            index_elements=["process", "host"],
            set_={
                "heartbeat_at": alive.excluded.heartbeat_at,
                "job_slots": alive.excluded.job_slots,
                "messages_rejected": Heartbeat.messages_rejected + alive.excluded.messages_rejected,
            },
        )
    )


def rejected_messages(session: Session) -> dict[str, int]:
    """How many messages each kind of process has ever rejected."""
    query = select(Heartbeat.process, func.sum(Heartbeat.messages_rejected)).group_by(Heartbeat.process)
    return {process: int(number) for process, number in session.execute(query)}


def is_fresh(settings: Settings) -> ColumnElement[bool]:
    """Whether a process is not silent, as a condition of a query of heartbeats."""
    return was_alive_within(silent_after_s(settings))


def silent_after_s(settings: Settings) -> float:
    """How many seconds after its last heartbeat a process is silent."""
    return settings.sweep_seconds * _MISSED


def was_alive_within(seconds: float | ColumnElement[float] = LONG_SILENT_S) -> ColumnElement[bool]:
    """Whether a process was alive within so many seconds, as a condition of a query of heartbeats."""
    return Heartbeat.heartbeat_at > seconds_from_now(-seconds)


def silent_processes(session: Session, settings: Settings) -> dict[Process, tuple[str, str]]:
    """The processes of which nobody is alive where one is needed: what to say of each, and the names of hosts.

    A runtime worker is needed on each host that jobs or deployments are on, and at least one anywhere; a notify worker
    where anybody has subscribed.
    """
    rows = session.execute(select(Heartbeat.process, Heartbeat.host).where(is_fresh(settings))).all()
    alive = {process for process, _ in rows}
    silent: dict[Process, tuple[str, str]] = {}
    if Process.BEAT not in alive:
        silent[Process.BEAT] = ("is silent: nobody sends the ticks of the sweep", "")
    for process in (Process.MAINTENANCE, Process.CLEANUP, Process.NOTIFY):
        if process not in alive and (process is not Process.NOTIFY or _is_anybody_subscribed(session)):
            silent[process] = (f"has no worker: nobody listens to the queue {process.value}", "")
    awaited = _hosts_in_use(session) - {host for process, host in rows if process == Process.RUNTIME}
    if Process.RUNTIME not in alive:
        silent[Process.RUNTIME] = ("has no worker: no host starts jobs and deployments", "")
    elif awaited:
        message = f"is silent on {len(awaited)} of the hosts that jobs or deployments are on"
        silent[Process.RUNTIME] = (message, ", ".join(sorted(awaited)))
    return silent


def _is_anybody_subscribed(session: Session) -> bool:
    return bool(session.scalar(select(exists().where(Subscription.is_enabled))))


def lost_hosts() -> Select[str]:
    """The query for the hosts whose runtime worker was alive once, but not within an hour."""
    return select(Heartbeat.host).where(Heartbeat.process == Process.RUNTIME, ~was_alive_within())


def _hosts_in_use(session: Session) -> set[str]:
    return set(session.scalars(_in_use()))


def _in_use() -> CompoundSelect[str]:
    return union(*(select(model.host).where(model.host.is_not(None)) for model in (Job, Deployment)))


def last_heartbeats(session: Session) -> list[tuple[str, str, float]]:
    """Process, host and time since the epoch of what was alive within an hour, and of hosts still in use."""
    return [(process, host, float(at)) for process, host, at in session.execute(_last_heartbeats())]


@cache
def _last_heartbeats() -> Select[str, str, float]:
    in_use = Heartbeat.host.in_(_in_use()) & (Heartbeat.process == Process.RUNTIME)
    since = func.extract("epoch", Heartbeat.heartbeat_at)
    return select(Heartbeat.process, Heartbeat.host, since).where(in_use | was_alive_within())
