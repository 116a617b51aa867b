"""When the parts of maintenance last succeeded, what the orphan scan has found, and whether destruction is paused."""

from collections.abc import Iterator
from datetime import datetime

from prometheus_client.core import Metric
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.health.metrics.families import gauge
from app.models import CleanupControl, MaintenanceStep, OrphanScan
from app.models.maintenance import ORPHANS, Step


def maintenance_metrics(session: Session) -> Iterator[Metric]:
    """Three statements."""
    control = session.get_one(CleanupControl, 1)
    scan = session.get(OrphanScan, 1)
    succeeded = {step.name: step.last_success_at for step in session.scalars(select(MaintenanceStep))}
    yield gauge(
        "workspaces_cleanup_last_sweep_timestamp_seconds",
        "When a sweep last succeeded in all its steps, 0 if never.",
        {(): _seconds(control.last_sweep_at)},
    )
    yield gauge(
        "workspaces_maintenance_last_success_timestamp_seconds",
        "When each step of the sweep last succeeded, 0 if never.",
        {(step.value,): _seconds(succeeded.get(step)) for step in Step},
        labels=["step"],
    )
    yield gauge(
        "workspaces_cleanup_last_orphan_scan_timestamp_seconds",
        "When an orphan scan was last completed, 0 if never.",
        {(): _seconds(scan.finished_at if scan else None)},
    )
    found = (scan.found if scan else None) or {}
    yield gauge(
        "workspaces_orphans",
        "Orphans that the last completed scan has found: `bytes` of workspaces that are gone, `servers` in a cluster. "
        "Missing if it could not look.",
        {(what,): found[what] for what in ORPHANS if what in found},
        labels=["what"],
    )
    yield gauge(
        "workspaces_destruction_paused",
        "1 while destruction is paused, with the name of who has paused it.",
        {(control.paused_by or "",): float(control.paused)},
        labels=["by"],
    )


def _seconds(at: datetime | None) -> float:
    return at.timestamp() if at else 0.0
