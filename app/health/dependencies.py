"""What the product depends on, looked at side by side: what is ready, and what is not, with the reason."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import exists, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.clock import seconds_from_now
from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.health.asking import ask
from app.health.database_faults import DatabaseFault, fault_of
from app.health.heartbeat import Process, silent_processes
from app.health.schema import schema_revisions_known, why_too_old
from app.lifecycle import DeletionState
from app.logs import explain
from app.models import CleanupControl, Deletion, DeletionHold, MaintenanceStep
from app.models.deletion import is_due, is_in
from app.models.maintenance import Step
from app.storage.tree import StoreAbsent

WITHIN_S = 4.0
"""How long anything is waited for, in seconds."""

_MISSED_SWEEPS = 3
"""Missed sweeps after which maintenance counts as down, or one step of it as failing."""

UNKNOWN = "is not known without the database"
"""The fault of what the database would have to be asked for."""
_TAKES_NOTHING = "takes nothing, though its heart beats: deletions are due, and nobody works on any"


@dataclass(frozen=True)
class Fault:
    """Something that is not ready. `detail` is for operators alone: texts of servers, hosts, buckets."""

    name: str
    message: str
    detail: str = ""


@dataclass
class Health:
    """The state of everything, in the order in which a person would look."""

    ready: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    controllers: dict[str, bool] = field(default_factory=dict)
    """Of the background work: whether each part of it does well. Empty without the database."""

    @property
    def serves(self) -> bool:
        """Whether requests can be served."""
        return {"database", "schema"} <= set(self.ready)


@dataclass(frozen=True)
class _Seen:
    """What the database says."""

    schema_fault: str | None
    silent: dict[Process, tuple[str, str]] = field(default_factory=dict)
    controllers: dict[str, bool] = field(default_factory=dict)


def why_not_ready(context: Context) -> str | None:
    """Why requests cannot be served, or None: the database and its schema alone decide. Takes seconds at most."""
    schema_revisions_known()  # read once, outside the time limit

    def check() -> str | None:
        with session_scope(context.sessions) as session:
            return why_too_old(session)

    found = ask({"readiness": check}, of=context, within_s=WITHIN_S)["readiness"]
    return explain(found) if isinstance(found, Exception) else found


def check_health(context: Context) -> Health:
    """Look at everything. Raises nothing, and takes seconds at most, whatever hangs."""
    schema_revisions_known()
    checks: dict[str, Callable[[], object]] = {
        "database": lambda: _look_into_database(context),
        "broker": context.publisher.ping,
        "store": context.store.check,
    }
    found = ask(checks, of=context, within_s=WITHIN_S)
    seen, health = found["database"], Health()
    faults = {fault.name: fault for fault in _faults(found)}
    names = ("database", "schema", "broker", *(process.value for process in Process), "store")
    health.ready = ["api", *(name for name in names if name not in faults)]
    health.faults = [faults[name] for name in names if name in faults]
    health.controllers = seen.controllers if isinstance(seen, _Seen) else {}
    return health


def _faults(found: dict[str, object]) -> Iterator[Fault]:
    seen, broker, store = found["database"], found["broker"], found["store"]
    if isinstance(seen, _Seen):
        if seen.schema_fault:
            yield Fault("schema", seen.schema_fault)
        for process in Process:
            if seen.schema_fault:
                yield Fault(process, UNKNOWN)
            elif process in seen.silent:
                yield Fault(process, *seen.silent[process])
    elif isinstance(seen, Exception):
        yield _database_fault(seen)
        yield from (Fault(name, UNKNOWN) for name in ("schema", *Process))
    if isinstance(broker, Exception):
        cause = broker.__cause__ or broker
        yield Fault("broker", f"does not answer ({type(cause).__name__})", explain(cause))
    if isinstance(store, Exception):
        # Which store is ours stands in the database: without its tables nobody can say anything of the store.
        is_known = isinstance(seen, _Seen) and not isinstance(store, SQLAlchemyError)
        yield _store_fault(store) if is_known else Fault("store", UNKNOWN)


def _database_fault(error: Exception) -> Fault:
    fault = fault_of(error)
    if fault is DatabaseFault.SILENT:
        message = f"does not answer ({type(error).__name__}); it hangs, or all of it is busy"
        return Fault("database", message, explain(error))
    return Fault("database", f"{fault.value} ({type(error).__name__})", explain(error))


def _store_fault(error: Exception) -> Fault:
    match error:
        case StoreAbsent():
            message = "is not there, or is another one than that of this installation"
        case TimeoutError():
            message = "does not answer"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            message = "is full"
        case _:
            message = "fails"
    return Fault("store", f"{message} ({type(error).__name__})", explain(error))


def _look_into_database(context: Context) -> _Seen:
    with session_scope(context.sessions) as session:
        if schema_fault := why_too_old(session):
            return _Seen(schema_fault)
        silent = silent_processes(session, context.settings)
        if Process.CLEANUP not in silent and _is_nobody_at_work(session, context.settings):
            silent[Process.CLEANUP] = (_TAKES_NOTHING, "")
        return _Seen(None, silent, _controllers(session, context.settings))


def _is_nobody_at_work(session: Session, settings: Settings) -> bool:
    """Whether a deletion has been due for as long as a lease lasts, and no worker has taken any for as long."""
    a_lease_ago = seconds_from_now(-settings.lease_seconds)
    allowed = [
        select(func.max(column)).scalar_subquery()
        for column in (CleanupControl.resumed_at, DeletionHold.released_at)
    ]
    due_since = func.greatest(Deletion.next_run_at, Deletion.purge_after, Deletion.lease_until, *allowed)
    is_left = exists().where(is_due(), due_since < a_lease_ago)
    is_taken = exists().where(Deletion.claimed_at > a_lease_ago)
    return bool(session.scalar(select(is_left & ~is_taken)))


def _controllers(session: Session, settings: Settings) -> dict[str, bool]:
    limit = seconds_from_now(-settings.sweep_seconds * _MISSED_SWEEPS)
    switch, swept = session.execute(
        select(CleanupControl.paused, CleanupControl.last_sweep_at > limit)
    ).one_or_none() or (False, False)
    is_any_failed = session.scalar(select(exists().where(is_in(DeletionState.FAILED))))
    is_any_held = session.scalar(select(exists().where(DeletionHold.released_at.is_(None))))
    steps = select(MaintenanceStep.name).where(MaintenanceStep.last_success_at > limit)
    succeeded = set(session.scalars(steps))
    return {
        "workspace_cleanup_sweep": bool(swept),
        "workspace_cleanup_not_paused": not switch,
        "workspace_cleanup_none_held": not is_any_held,
        "workspace_cleanup_none_failed": not is_any_failed,
        **{f"workspace_maintenance_{step}": step in succeeded for step in Step},
    }
