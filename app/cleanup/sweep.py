"""The deletions' part of the sweep: reopen those whose re-attempt has come, and enqueue those that are due."""

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.cleanup import ledger, remaining
from app.clock import database_now, seconds_from_now, seconds_since
from app.dispatch import Message, cleanup_message
from app.lifecycle import DeletionState
from app.models import Deletion
from app.models.deletion import is_due

_MESSAGES_PER_SWEEP = 200
"""Enough to fill every worker for a tick; the oldest come first, so the rest have their turn."""


def reattempt_failed(session: Session) -> int:
    """Reopen the FAILED deletions whose scheduled re-attempt has come; how many. Does not commit."""
    due = session.scalars(
        select(Deletion.id)
        .where(Deletion.state == DeletionState.FAILED, Deletion.next_reattempt_at <= database_now())
        .order_by(Deletion.next_reattempt_at)
        .limit(_MESSAGES_PER_SWEEP)
        .with_for_update(skip_locked=True)  # two sweeps share the work instead of waiting for each other
    ).all()
    for deletion_id in due:
        ledger.reopen(session, deletion_id, event="reattempted", actor=ledger.SWEEP)
    return len(due)


def due_messages(session: Session, *, requeue_s: float) -> tuple[list[Message], float]:
    """Messages for the due deletions that were not enqueued for `requeue_s` seconds, and the age of the oldest due one.

    The age is in seconds, 0 if none is due. Notes them as enqueued, so that the next sweep does not repeat them at
    once. Does not commit.
    """
    # Materialized: the index of `requested_at` would be read from the first deletion that ever was.
    due_since = select(Deletion.requested_at).where(is_due()).cte("due").prefix_with("MATERIALIZED")
    oldest_s = session.scalar(select(seconds_since(func.min(due_since.c.requested_at))))
    # Enqueued a moment ago: its message waits in the queue, and another would only lengthen the queue.
    not_lately = or_(
        Deletion.last_enqueued_at.is_(None), Deletion.last_enqueued_at < seconds_from_now(-requeue_s)
    )
    due = session.scalars(
        select(Deletion)
        .where(is_due(), not_lately)
        .order_by(Deletion.next_run_at)
        .limit(_MESSAGES_PER_SWEEP)
        .with_for_update(skip_locked=True)
    ).all()
    messages = []
    for deletion in due:
        ledger.note_enqueued(session, deletion.id)
        kind = remaining.first_kind(session, deletion.workspace_id, deletion.id)
        messages.append(
            cleanup_message(
                deletion.id,
                deletion.workspace_name,
                kind.name if kind else None,
                attempt=deletion.attempts,
            )
        )
    return messages, oldest_s or 0.0
