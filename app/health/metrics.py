"""What `/metrics` shows: of this process and its dependencies always, of the cascade while the database answers.

The database is the truth: no process keeps counts, and every API process answers the same.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.clock import seconds_since
from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.health.asking import ask
from app.health.capacity import slots_by_host, waiting_jobs
from app.health.dependencies import WITHIN_S, Health, check_health
from app.health.heartbeat import Process, last_heartbeats, rejected_messages
from app.lifecycle import DeletionState, WorkspaceState
from app.logs import explain, get_logger
from app.models import CleanupControl, Deletion, DeletionHold, MaintenanceStep, Workspace
from app.models.maintenance import Step
from app.version import VERSION

log = get_logger(__name__)


def exposition(context: Context) -> bytes:
    """All metrics in the text format of Prometheus. Takes seconds at most, and raises nothing.

    Without the database those that are read from it are missing.
    """
    health = check_health(context)
    texts = [_of_this_process(health)]
    if health.serves:
        counted = ask({"metrics": _counting(context)}, of=context, within_s=WITHIN_S)["metrics"]
        if isinstance(counted, Exception):
            log.warning("metrics.not_counted", error=explain(counted))
        else:
            texts.append(counted)
    return b"".join(texts)


def _of_this_process(health: Health) -> bytes:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Gauge("workspaces_build_info", "The release that answers.", ["version"], registry=registry)
    build.labels(VERSION).set(1)
    up = Gauge(
        "workspaces_up",
        "1 if a dependency or a kind of process is ready, as in /status; alert when it is 0.",
        ["dependency"],
        registry=registry,
    )
    for name in health.ready:
        up.labels(name).set(1)
    for fault in health.faults:
        up.labels(fault.name).set(0)
    return generate_latest(registry)


def _counting(context: Context) -> Callable[[], bytes]:
    def count() -> bytes:
        with session_scope(context.sessions) as session:
            return _of_the_database(session, context.settings)

    return count


def _of_the_database(session: Session, settings: Settings) -> bytes:
    registry = CollectorRegistry()
    _describe_deletions(session, registry)
    _describe_maintenance(session, registry)
    _describe_processes(session, settings, registry)
    return generate_latest(registry)


def _describe_deletions(session: Session, registry: CollectorRegistry) -> None:
    workspaces = Gauge("workspaces", "Workspaces by state.", ["state"], registry=registry)
    deletions = Gauge("workspaces_deletions", "Deletions by state.", ["state"], registry=registry)
    oldest = Gauge(
        "workspaces_deletion_oldest_seconds", "Age of the oldest unfinished deletion.", registry=registry
    )
    for state in WorkspaceState:
        query = select(func.count()).where(Workspace.state == state)
        workspaces.labels(state.value).set(session.scalar(query) or 0)
    for deletion_state in DeletionState:
        query = select(func.count()).where(Deletion.state == deletion_state)
        deletions.labels(deletion_state.value).set(session.scalar(query) or 0)
    unfinished = Deletion.state.in_([DeletionState.DELETING, DeletionState.FAILED])
    oldest.set(session.scalar(select(seconds_since(func.min(Deletion.requested_at))).where(unfinished)) or 0)
    held = Gauge("workspaces_deletions_held", "Deletions that the breaker holds.", registry=registry)
    holds = select(DeletionHold.requested_by).where(DeletionHold.released_at.is_(None))
    living = select(func.count()).where(Deletion.state == DeletionState.DELETING)
    held.set(session.scalar(living.where(Deletion.requested_by.in_(holds))) or 0)


def _describe_maintenance(session: Session, registry: CollectorRegistry) -> None:
    sweep = Gauge(
        "workspaces_cleanup_last_sweep_timestamp_seconds",
        "When a sweep last succeeded in all its steps; alert when it is older than a minute.",
        registry=registry,
    )
    steps = Gauge(
        "workspaces_maintenance_last_success_timestamp_seconds",
        "When each step of the sweep last succeeded, 0 if never; alert when one is older than a minute.",
        ["step"],
        registry=registry,
    )
    paused = Gauge("workspaces_destruction_paused", "1 while destruction is paused.", registry=registry)
    control = session.get_one(CleanupControl, 1)
    sweep.set(control.last_sweep_at.timestamp() if control.last_sweep_at else 0)
    succeeded = {step.name: step.last_success_at for step in session.scalars(select(MaintenanceStep))}
    for name in Step:
        steps.labels(name.value).set(succeeded[name].timestamp() if name in succeeded else 0)
    paused.set(control.paused)


def _describe_processes(session: Session, settings: Settings, registry: CollectorRegistry) -> None:
    processes = Gauge(
        "workspaces_process_last_seen_timestamp_seconds",
        "When beat, a maintenance or a cleanup worker of a host was last alive, by the database's clock.",
        ["process", "host"],
        registry=registry,
    )
    hosts = Gauge(
        "workspaces_runtime_host_last_seen_timestamp_seconds",
        "When the runtime worker of a host was last alive, by the database's clock.",
        ["host"],
        registry=registry,
    )
    rejected = Counter(
        "workspaces_messages_rejected_total",
        "Messages in the broker that workers have rejected, because no program of ours had sent them.",
        ["process"],
        registry=registry,
    )
    slots = Gauge("workspaces_runtime_job_slots", "Jobs that may run on a host.", ["host"], registry=registry)
    taken = Gauge("workspaces_runtime_jobs", "Jobs that run on a host.", ["host"], registry=registry)
    waiting = Gauge("workspaces_jobs_waiting", "Jobs that wait for a host.", registry=registry)
    waiting.set(waiting_jobs(session))
    for host, of_host in slots_by_host(session, settings).items():
        slots.labels(host).set(of_host.number)
        taken.labels(host).set(of_host.taken)
    for process, number in rejected_messages(session).items():
        rejected.labels(process).inc(number)
    for process, host, at in last_heartbeats(session):
        if process == Process.RUNTIME:
            hosts.labels(host).set(at)
        else:
            processes.labels(process, host).set(at)
