"""What `workspaces doctor` says: everything that `/status` looks at, and what only an operator's host can tell."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.clock import database_now, now, seconds_since
from app.config import Settings
from app.context import Context
from app.db import read
from app.health.asking import ask
from app.health.capacity import Slots, slots_by_host, waiting_jobs
from app.health.dependencies import UNKNOWN, WITHIN_S, Fault, Health, check_health
from app.health.heartbeat import Process
from app.logs import explain
from app.models import CleanupControl

_APART = timedelta(seconds=5)
"""How far the clock of this host may be from the database's: more than any that is kept right."""

_REMEDIES = {
    "database": "start PostgreSQL, or mend WORKSPACES_DATABASE_URL",
    "schema": "run `workspaces db upgrade`",
    "broker": "start Redis, or mend WORKSPACES_BROKER_URL; nothing is lost meanwhile, and `workspaces cleanup run` "
    "works without it",
    "store": "mount it for writing, make room, or mend WORKSPACES_STORAGE_URL or WORKSPACES_DATA_DIR; after a move or "
    "a restore `workspaces store adopt` takes it as it is",
    Process.BEAT: "start `workspaces serve beat`, or look for `heartbeat.not_noted` in its log",
    Process.MAINTENANCE: "start `workspaces serve maintenance`, or look for `heartbeat.not_noted` in its log",
    Process.CLEANUP: "start `workspaces serve worker`; restart one that takes nothing",
    Process.NOTIFY: "start `workspaces serve notify`; nothing is lost meanwhile, and deletions do not wait for it",
    Process.RUNTIME: "start `workspaces serve runtime` there; `workspaces runtime purge` gives up a host that is gone",
}

_CONTROLLERS = {
    "workspace_cleanup_not_paused": (
        "destruction",
        "is paused: what is deleted is not accessible, and still there",
        "see `workspaces cleanup status`; `workspaces cleanup resume` goes on",
    ),
    "workspace_cleanup_none_held": (
        "breaker",
        "holds the deletions of a requester who asked for many",
        "see `workspaces cleanup status`, and docs/cleanup.md for their release",
    ),
    "workspace_cleanup_none_failed": (
        "deletions",
        "some are FAILED",
        "see `workspaces deletion list --all --state FAILED`",
    ),
}
"""Parts of the background work by their names in `/status`: what to say while one of them does not do well."""


def concern_of(controller: str) -> str:
    """What to say while a part of the background work, by its name in `/status`, does not do well."""
    if controller in _CONTROLLERS:
        name, message, _ = _CONTROLLERS[controller]
        return f"{name}: {message}"
    step = controller.removeprefix("workspace_maintenance_")
    return f"sweep: {step} was not done lately" if step != controller else "sweep: none has succeeded lately"


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis: what was looked at, whether it is as it should be, and what to do if not."""

    name: str
    ok: bool
    message: str
    remedy: str = ""

    def as_item(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


@dataclass(frozen=True)
class _Seen:
    """What the database says that `check_health` does not ask."""

    ahead: timedelta
    swept_s: float | None
    slots: dict[str, Slots]
    waiting: int


def diagnose(context: Context) -> list[Finding]:
    """Look at everything, in the order in which a person would. Takes seconds at most, and raises nothing."""
    health = check_health(context)
    findings = [Finding("settings", ok=True, message="ok"), *_dependencies(health)]
    if health.serves:
        # From here on only what was not asked yet.
        seen = ask({"diagnosis": lambda: _look(context)}, of=context, within_s=WITHIN_S)["diagnosis"]
        findings += [_clock(seen), _sweep(seen, health), _slots(seen), *_background(health)]
    return findings


def _look(context: Context) -> _Seen:
    return read(context.sessions, lambda session: _read(session, context.settings))


def _read(session: Session, settings: Settings) -> _Seen:
    asked_at = now()
    at = session.scalars(select(database_now())).one()
    # The answer was made at some time between; half of the way is the best guess.
    ahead = asked_at + (now() - asked_at) / 2 - at
    return _Seen(
        ahead=ahead,
        swept_s=session.scalar(select(seconds_since(CleanupControl.last_sweep_at))),
        slots=slots_by_host(session, settings),
        waiting=waiting_jobs(session),
    )


def _dependencies(health: Health) -> Iterator[Finding]:
    faults = {fault.name: fault for fault in health.faults}
    for name in ("database", "schema", "broker", "store", *(process.value for process in Process)):
        if fault := faults.get(name):
            remedy = "mend the database first" if fault.message == UNKNOWN else _REMEDIES[name]
            yield Finding(name, ok=False, message=_in_full(fault), remedy=remedy)
        else:
            yield Finding(name, ok=True, message="ok")


def _in_full(fault: Fault) -> str:
    return f"{fault.message}: {fault.detail}" if fault.detail else fault.message


def _not_seen(name: str, error: Exception) -> Finding:
    return Finding(
        name,
        ok=False,
        message=f"was not looked at: {explain(error)}",
        remedy="mend or unburden the database, which answered other questions, and run `workspaces doctor` again",
    )


def _clock(seen: _Seen | Exception) -> Finding:
    if isinstance(seen, Exception):
        return _not_seen("clock", seen)
    seconds = seen.ahead.total_seconds()
    if abs(seen.ahead) < _APART:
        return Finding("clock", ok=True, message="ok")
    where = "ahead of" if seconds > 0 else "behind"
    return Finding(
        "clock",
        ok=False,
        message=f"of this host is {abs(seconds):.0f} s {where} that of the database",
        remedy="set both by NTP: tokens and times in logs go by a host's clock",
    )


def _sweep(seen: _Seen | Exception, health: Health) -> Finding:
    failing = [
        name.removeprefix("workspace_maintenance_")
        for name, does_well in health.controllers.items()
        if name.startswith("workspace_maintenance_") and not does_well
    ]
    if isinstance(seen, Exception):
        age = "at a time that was not read"
    else:
        age = "never" if seen.swept_s is None else f"{seen.swept_s:.0f} s ago"
    if health.controllers["workspace_cleanup_sweep"] and not failing:
        return Finding("sweep", ok=True, message=f"ok: {age}")
    steps = f"; not done lately: {', '.join(failing)}" if failing else ""
    return Finding(
        "sweep",
        ok=False,
        message=f"succeeded last: {age}{steps}",
        remedy="start beat and maintenance; `maintenance.step_failed` in the log of maintenance says why a step fails",
    )


def _slots(seen: _Seen | Exception) -> Finding:
    if isinstance(seen, Exception):
        return _not_seen("job slots", seen)
    taken, number = (sum(getattr(one, name) for one in seen.slots.values()) for name in ("taken", "number"))
    is_full = all(one.is_full for one in seen.slots.values())
    if not seen.waiting or not is_full:
        return Finding("job slots", ok=True, message=f"ok: {taken} of {number} are taken")
    if not number:
        return Finding(
            "job slots",
            ok=False,
            message=f"no host takes up jobs, and {seen.waiting} wait",
            remedy="start a runtime worker whose host may start processes (WORKSPACES_SUBPROCESS_PROVIDER)",
        )
    return Finding(
        "job slots",
        ok=False,
        message=f"all {number} are taken, and {seen.waiting} jobs wait",
        remedy="wait for one to end, start a runtime worker on another host, or raise WORKSPACES_RUNTIME_JOB_SLOTS",
    )


def _background(health: Health) -> Iterator[Finding]:
    for controller, (name, message, remedy) in _CONTROLLERS.items():
        if health.controllers[controller]:
            yield Finding(name, ok=True, message="ok")
        else:
            yield Finding(name, ok=False, message=message, remedy=remedy)
