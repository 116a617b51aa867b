"""The record of a deletion: ledger row, failures, history, and the switch that pauses destruction.

These tables have no foreign key to `workspaces`, because they outlive its rows.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    and_,
    exists,
    func,
    literal_column,
    or_,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import database_now
from app.db import Base
from app.lifecycle import DeletionState, FailureClass
from app.models.columns import Id, Leased, Now, String, Time, TransactionId, state_column

Counts = dict[str, int]


class Deletion(Leased, Base):
    """One request to delete one workspace. Written by `app.cleanup.ledger` and `app.cleanup.lease` alone."""

    __tablename__ = "deletions"
    __table_args__ = (
        # At most one unfinished deletion per workspace: enforced by the index, not by a check before the insert.
        Index(
            "uq_deletions_living",
            "workspace_id",
            unique=True,
            postgresql_where=text("state IN ('DELETING', 'FAILED')"),
        ),
        Index("ix_deletions_due", "next_run_at", postgresql_where=text("state = 'DELETING'")),
        Index(
            "ix_deletions_turn",
            "requested_by",
            "next_run_at",
            postgresql_where=text("state = 'DELETING'"),
        ),
        Index("ix_deletions_claimed_at", "claimed_at", postgresql_where=text("claimed_at IS NOT NULL")),
        Index("ix_deletions_reattempt", "next_reattempt_at", postgresql_where=text("state = 'FAILED'")),
        Index(
            "ix_deletions_finished_at",
            "finished_at",
            "id",
            postgresql_where=text("state IN ('DONE', 'RESTORED')"),
        ),
        Index("ix_deletions_requested_at", "requested_at"),
        Index("ix_deletions_workspace_name", "workspace_name"),
        Index("ix_deletions_requested_by", "requested_by", "requested_at"),
    )

    id: Mapped[Id]
    workspace_id: Mapped[UUID]
    workspace_name: Mapped[String]
    workspace_created_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    state: Mapped[DeletionState] = mapped_column(state_column(DeletionState), default=DeletionState.DELETING)
    requested_by: Mapped[str] = mapped_column(Text, default="")
    requested_at: Mapped[Now]
    request_reason: Mapped[str | None] = mapped_column(Text)
    """Why it was requested, in the requester's words."""
    purge_after: Mapped[Now]
    """End of the grace period; destruction begins no earlier."""
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When the first slice began. From then on the workspace cannot be restored."""
    claimed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When the last claim was; the latest of all deletions says whose turn it was."""
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    phase: Mapped[str | None] = mapped_column(Text)
    """The kind that is being cleaned."""
    phase_started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    cursor: Mapped[UUID | None]
    """Id of the last resource visited in the current pass."""
    pass_started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When the current pass began: a failure that it has not seen does not count."""
    has_progressed: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether anything was removed since the last back-off."""
    last_progress_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    worked_seconds: Mapped[float | None] = mapped_column(Double)
    """From the first slice to the last progress, without the time in which it was FAILED. None before any progress."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts without progress in this round."""
    polls: Mapped[int] = mapped_column(Integer, default=0)
    """Consecutive passes in which every remaining resource was pending."""
    round: Mapped[int] = mapped_column(Integer, default=0)
    """Number of scheduled re-attempts so far."""
    next_run_at: Mapped[Now]
    last_enqueued_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When the sweep, or a slice that yielded, last enqueued a message for it."""
    next_reattempt_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    reopened_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When it was last set to work again after it had been FAILED."""
    reason: Mapped[str | None] = mapped_column(Text)
    failed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """Since when it has been FAILED without a break; null unless it is. Kept by a trigger of each change of state."""

    created_counts: Mapped[Counts] = mapped_column(JSONB, default=dict)
    """Number of resources per kind when the first slice began."""
    deleted_counts: Mapped[Counts] = mapped_column(JSONB, default=dict)

    force: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """Set while an administrator's force is carried out: `by`, `reason`, and `skipped`, the number so far per kind."""


class DeletionFailure(Base):
    """Why one resource remains. Kept until it is removed; kept for good once an administrator has skipped it."""

    __tablename__ = "deletion_failures"
    __table_args__ = (
        Index(
            "ix_deletion_failures_open",
            "deletion_id",
            "first_seen_at",
            "resource_id",
            postgresql_where=text("skipped_by IS NULL"),
        ),
        Index(
            "ix_deletion_failures_skipped",
            "deletion_id",
            "kind",
            "resource_id",
            postgresql_where=text("skipped_by IS NOT NULL"),
        ),
    )

    deletion_id: Mapped[UUID] = mapped_column(ForeignKey("deletions.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    resource_id: Mapped[str] = mapped_column(Text, primary_key=True)
    """The resource's id, or `*` when the kind as a whole failed."""
    name: Mapped[String]
    error_class: Mapped[FailureClass] = mapped_column(state_column(FailureClass))
    message: Mapped[String]
    cause: Mapped[str | None] = mapped_column(Text)
    """The message without what names this resource: the same for all that fail for the same reason."""
    attempts: Mapped[int] = mapped_column(Integer, default=1)
    first_seen_at: Mapped[Time]
    last_seen_at: Mapped[Time]
    skipped_by: Mapped[str | None] = mapped_column(Text)
    skip_reason: Mapped[str | None] = mapped_column(Text)


class DeletionFailureCount(Base):
    """How many failures of a deletion have the same cause. Kept by triggers of `deletion_failures`.

    Who writes failures has locked their deletion, so no two writers wait for each other here.
    """

    __tablename__ = "deletion_failure_counts"
    __table_args__ = (Index("ix_deletion_failure_counts_number", "deletion_id", "number"),)

    deletion_id: Mapped[UUID] = mapped_column(ForeignKey("deletions.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    error_class: Mapped[str] = mapped_column(Text, primary_key=True)
    is_skipped: Mapped[bool] = mapped_column(Boolean, primary_key=True)
    cause_key: Mapped[UUID] = mapped_column(primary_key=True)
    """A hash of the cause: an index cannot hold a text of any length."""
    cause: Mapped[String]
    """What the failures have in common: their `cause`, or their message if they have none."""
    number: Mapped[int] = mapped_column(BigInteger)


class DeletionEvent(Base):
    """One event in the history of a deletion. Append-only."""

    __tablename__ = "deletion_events"
    __table_args__ = (
        Index("ix_deletion_events_deletion_id_id", "deletion_id", "id"),
        Index("ix_deletion_events_transaction_id_id", "transaction_id", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    transaction_id: Mapped[str] = mapped_column(TransactionId, server_default=func.pg_current_xact_id())
    """The transaction that has written it. Of two events, the one with the smaller id may be committed later."""
    deletion_id: Mapped[UUID] = mapped_column(ForeignKey("deletions.id"))
    at: Mapped[Now]
    actor: Mapped[String]
    event: Mapped[String]
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)


class DeletionHold(Base):
    """The breaker's hold on the deletions of one requester, until an administrator releases them."""

    __tablename__ = "deletion_holds"

    requested_by: Mapped[str] = mapped_column(Text, primary_key=True)
    held_at: Mapped[Time]
    reason: Mapped[String]
    released_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """The breaker counts only later requests; otherwise it would hold them again at the next one."""


class CleanupControl(Base):
    """The single row that pauses destruction and records when the sweep last ran."""

    __tablename__ = "cleanup_control"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, default=1)
    paused: Mapped[bool] = mapped_column(Boolean, default=False)
    paused_by: Mapped[str | None] = mapped_column(Text)
    paused_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    reason: Mapped[str | None] = mapped_column(Text)
    """Why the breaker of an earlier release has paused all destruction."""
    resumed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When destruction was last resumed."""
    last_sweep_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


def is_in(*states: DeletionState) -> ColumnElement[bool]:
    """Whether a deletion is in one of `states`, as a condition of a query, in the words of the partial indexes."""
    # The database cannot know of a parameter whether an index applies.
    named: list[Any] = [literal_column(f"'{state.value}'") for state in states]
    return Deletion.state.in_(named)


def is_due() -> ColumnElement[bool]:
    """The condition under which a deletion may be claimed."""
    paused = exists().where(CleanupControl.paused)
    return and_(
        Deletion.state == DeletionState.DELETING,
        Deletion.next_run_at <= database_now(),
        Deletion.purge_after <= database_now(),
        or_(Deletion.lease_until.is_(None), Deletion.lease_until < database_now()),
        ~paused,
        ~is_on_hold(),
    )


def is_on_hold() -> ColumnElement[bool]:
    """Whether the breaker holds the `Deletion` of the surrounding query."""
    return exists().where(
        DeletionHold.requested_by == Deletion.requested_by, DeletionHold.released_at.is_(None)
    )
