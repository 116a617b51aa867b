"""Maintenance: which processes live, when each step last succeeded, how far the orphan scan is, and retentions."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import String, Time


class Step(StrEnum):
    """A step of the sweep. The names are those in `/status` and `/metrics`."""

    REATTEMPT_DELETIONS = "reattempt_deletions"
    ENQUEUE_DELETIONS = "enqueue_deletions"
    MARK_LOST_JOBS = "mark_lost_jobs"
    ENQUEUE_DELIVERIES = "enqueue_deliveries"
    ENQUEUE_JOBS = "enqueue_jobs"
    MARK_LOST_DEPLOYMENTS = "mark_lost_deployments"
    ENQUEUE_DEPLOYMENTS = "enqueue_deployments"
    REMOVE_DEPLOYMENTS = "remove_deployments"
    REMOVE_PROJECTS = "remove_projects"
    FOLD_COUNTS = "fold_counts"
    PRUNE_ACCESS_KEYS = "prune_access_keys"
    PRUNE_RECORDS = "prune_records"
    EXPIRE_JOBS = "expire_jobs"
    CONTINUE_ORPHAN_SCAN = "continue_orphan_scan"


ORPHANS = ("bytes", "servers")
"""What an orphan scan looks for, as it is called in `OrphanScan.found` and in `/metrics`."""


class Heartbeat(Base):
    """When a process was last known to be alive on a host, by the database's clock."""

    __tablename__ = "heartbeats"

    process: Mapped[String] = mapped_column(primary_key=True)
    host: Mapped[String] = mapped_column(primary_key=True)
    heartbeat_at: Mapped[Time]
    messages_rejected: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Messages of the broker that it has rejected, because no program of ours had sent them."""
    job_slots: Mapped[int] = mapped_column(server_default="0")
    """How many jobs may run on the host at a time; 0 while its runtime worker takes up none."""


class MaintenanceStep(Base):
    """When a step of the sweep last succeeded: written in the transaction of the step. No row before the first time."""

    __tablename__ = "maintenance_steps"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    """A `Step`, or one that a newer release has."""
    last_success_at: Mapped[Time]
    unbroken_since: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """Since when it has succeeded again and again without a pause in which a database may have been away."""


class OrphanScan(Base):
    """The orphan scan: a single row. No row before the first time."""

    __tablename__ = "orphan_scans"
    __table_args__ = (CheckConstraint("id = 1", name="only_one"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    busy_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """While a process carries out a slice: when it must be dead."""
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """How far the scan is that is under way, as `app.maintenance.orphan_scan.Scan`."""
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When a scan was last completed."""
    found: Mapped[dict[str, int] | None] = mapped_column(JSONB(none_as_null=True))
    """How many of each of `ORPHANS` that one has found; what it could not look for is missing."""


class Retention(Base):
    """How long one sort of records is kept. The role of the processes may read it, no more: `db upgrade` writes it.

    The functions of the owner that remove records take their age from here, not from who calls them.
    """

    __tablename__ = "retentions"

    records: Mapped[str] = mapped_column(Text, primary_key=True)
    """The table, `deletions` or `audit_records`."""
    days: Mapped[int] = mapped_column(Integer)
    """The age at which they are removed; 0 to keep them."""
    passed_at: Mapped[Time] = mapped_column(server_default="epoch")
    """Of deletions: those that ended before, or then with an id up to `passed_id`, are removed, or always stay."""
    passed_id: Mapped[UUID] = mapped_column(server_default=str(UUID(int=0)))
