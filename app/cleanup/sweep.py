"""The deletions' part of the sweep: reopen those whose re-attempt has come, and enqueue those that are due."""

from datetime import datetime, timedelta

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.cleanup import lease, ledger, remaining
from app.dispatch import Message, cleanup_message
from app.lifecycle import DeletionState
from app.models import Deletion

_MESSAGES_PER_SWEEP = 200
"""Enough to fill every worker for a tick; the oldest come first, so the rest have their turn."""


def reattempt_failed(session: Session, *, now: datetime) -> int:
    """Reopen the FAILED deletions whose scheduled re-attempt has come; how many. Does not commit."""
    due = session.scalars(
        select(Deletion.id)
        .where(Deletion.state == DeletionState.FAILED, Deletion.next_reattempt_at <= now)
        .order_by(Deletion.next_reattempt_at)
        .limit(_MESSAGES_PER_SWEEP)
        .with_for_update(skip_locked=True)  # two sweeps share the work instead of waiting for each other
    ).all()
    for deletion_id in due:
        ledger.reopen(session, deletion_id, event="reattempted", actor=ledger.SWEEP, now=now)
    return len(due)


def due_messages(
    session: Session, *, now: datetime, requeue_interval: timedelta
) -> tuple[list[Message], float]:
    """Messages for the deletions that are due and not enqueued lately, and the age in seconds of the oldest due one.

    Notes them as enqueued, so that the next sweep does not repeat them at once. Does not commit.
    """
    oldest = session.scalar(
        select(Deletion.requested_at).where(lease.is_due(now)).order_by(Deletion.requested_at).limit(1)
    )
    # Enqueued a moment ago: its message waits in the queue, and another would only lengthen the queue.
    not_lately = or_(Deletion.last_enqueued_at.is_(None), Deletion.last_enqueued_at < now - requeue_interval)
    due = session.scalars(
        select(Deletion)
        .where(lease.is_due(now), not_lately)
        .order_by(Deletion.next_run_at)
        .limit(_MESSAGES_PER_SWEEP)
        .with_for_update(skip_locked=True)
    ).all()
    messages = []
    for deletion in due:
        ledger.note_enqueued(session, deletion.id, now=now)
        kind = remaining.first_kind(session, deletion.workspace_id, deletion.id)
        messages.append(
            cleanup_message(
                deletion.id,
                deletion.workspace_name,
                kind.name if kind else None,
                attempt=deletion.attempts,
            )
        )
    return messages, (now - oldest).total_seconds() if oldest else 0.0
