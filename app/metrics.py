"""Metrics of the cascade, read from the database at each scrape.

The database is the truth: no process keeps counts, and every API process answers the same.
"""

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.clock import seconds_since
from app.lifecycle import DeletionState, WorkspaceState
from app.models import CleanupControl, Deletion, DeletionHold, MaintenanceStep, Workspace
from app.models.maintenance import Step


def exposition(session: Session) -> bytes:
    """All metrics in the text format of Prometheus."""
    registry = CollectorRegistry()
    workspaces = Gauge("workspaces", "Workspaces by state.", ["state"], registry=registry)
    deletions = Gauge("workspaces_deletions", "Deletions by state.", ["state"], registry=registry)
    oldest = Gauge(
        "workspaces_deletion_oldest_seconds", "Age of the oldest unfinished deletion.", registry=registry
    )
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

    for state in WorkspaceState:
        query = select(func.count()).where(Workspace.state == state)
        workspaces.labels(state.value).set(session.scalar(query) or 0)
    for deletion_state in DeletionState:
        query = select(func.count()).where(Deletion.state == deletion_state)
        deletions.labels(deletion_state.value).set(session.scalar(query) or 0)
    unfinished = Deletion.state.in_([DeletionState.DELETING, DeletionState.FAILED])
    oldest.set(session.scalar(select(seconds_since(func.min(Deletion.requested_at))).where(unfinished)) or 0)
    control = session.get_one(CleanupControl, 1)
    sweep.set(control.last_sweep_at.timestamp() if control.last_sweep_at else 0)
    succeeded = {step.name: step.last_success_at for step in session.scalars(select(MaintenanceStep))}
    for name in Step:
        steps.labels(name.value).set(succeeded[name].timestamp() if name in succeeded else 0)
    paused.set(control.paused)
    held = Gauge("workspaces_deletions_held", "Deletions that the breaker holds.", registry=registry)
    holds = select(DeletionHold.requested_by).where(DeletionHold.released_at.is_(None))
    living = select(func.count()).where(Deletion.state == DeletionState.DELETING)
    held.set(session.scalar(living.where(Deletion.requested_by.in_(holds))) or 0)
    return generate_latest(registry)
