"""The history of a deletion: append-only, and written to the log in the same words.

An event that subscriptions hear of is written together with its deliveries: neither is committed without the other.
"""

from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Select, Text, Uuid, any_, bindparam, insert, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.clock import database_now
from app.dispatch import TaskPublisher, delivery_message, notify_after_commit
from app.lifecycle import NOTIFIED_EVENTS
from app.logs import get_logger
from app.models import DeletionEvent, Delivery, Subscription

log = get_logger(__name__)

_WORRYING = {"backed_off", "worker_lost", "held"}
"""Events after which the work goes on by itself, but that a person may want to notice."""

_TOLD_APART = {"failed"}
"""Events of which `log_failed` writes the line, with all that a person needs."""

_RECEIVERS = "receivers"
"""Key in the `info` of a session: the subscriptions that its transaction has something for."""


def record(session: Session, deletion_id: UUID, event: str, *, actor: str, **detail: Any) -> None:
    """Append one line to a deletion's history, with what subscriptions hear of it, and to the log."""
    if event in NOTIFIED_EVENTS:
        _record_for_receivers(session, deletion_id, event, actor, detail)
    else:
        session.add(DeletionEvent(deletion_id=deletion_id, actor=actor, event=event, detail=detail))
    if event in _TOLD_APART:
        return
    write = log.warning if event in _WORRYING else log.info
    write(f"deletion.{event}", deletion_id=str(deletion_id), actor=actor, **detail)


def notify_receivers(session: Session, publisher: TaskPublisher) -> None:
    """Enqueue what subscriptions hear of the transaction once it has committed; the sweep replaces a lost message.

    To be called after the events were recorded. Does nothing where nobody has subscribed to them.
    """
    for subscription_id in session.info.pop(_RECEIVERS, ()):
        notify_after_commit(session, publisher, delivery_message(subscription_id))


def _record_for_receivers(
    session: Session, deletion_id: UUID, event: str, actor: str, detail: dict[str, Any]
) -> None:
    session.flush()  # the events before it come first
    of = {"deletion": deletion_id, "actor": actor, "event": event, "detail": detail}
    found = session.scalars(_with_deliveries(), {**of, "type": NOTIFIED_EVENTS[event].value})
    session.info.setdefault(_RECEIVERS, set()).update(found)


@cache
def _with_deliveries() -> Select[UUID]:
    """Inserts an event and its deliveries; the subscriptions that can be sent something now.

    One statement: who has no subscription pays for no other. Nothing of a subscription is locked, because what changes
    one must not wait for deletions, nor they for it.
    """
    event = (
        insert(DeletionEvent)
        .values(
            deletion_id=bindparam("deletion", type_=Uuid),
            at=database_now(),
            actor=bindparam("actor", type_=Text),
            event=bindparam("event", type_=Text),
            detail=bindparam("detail", type_=JSONB),
        )
        .returning(DeletionEvent.id)
        .cte("event")
    )
    type_ = bindparam("type", type_=Text)
    subscribed = (
        select(Subscription.id, event.c.id.cast(BigInteger), type_, *(database_now(),) * 3)
        .join(event, true())
        .where(Subscription.is_enabled, type_ == any_(Subscription.types))
    )
    columns = ["subscription_id", "event_id", "type", "created_at", "due_at", "next_attempt_at"]
    added = (
        insert(Delivery)
        .from_select(columns, subscribed, include_defaults=False)
        .returning(Delivery.subscription_id)
        .cte("added")
    )
    return (
        select(added.c.subscription_id)
        .join(Subscription, Subscription.id == added.c.subscription_id)
        .where(Subscription.next_attempt_at <= database_now())
    )


def log_failed(deletion_id: UUID, workspace: str, *, reason: str, reattempt_at: datetime | None) -> None:
    """Write the one line of the log about a FAILED deletion: what, where and why, and what comes next."""
    retry = f"POST /apis/entities/v2/deletions/{deletion_id}/retry"
    log.error(
        "workspace.cleanup_failed",
        deletion_id=str(deletion_id),
        workspace=workspace,
        reason=reason,
        next=f"re-attempted at {reattempt_at.isoformat()}; {retry} does it now"
        if reattempt_at
        else f"mend the cause, then {retry}; or skip what has to stay",
    )
