"""What was sent to a subscription, what is on its way, and sending something again."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, update
from sqlalchemy.orm import Session

from app.access import audit
from app.access.authorize import Actor
from app.clock import database_now
from app.context import Context
from app.errors import NotFound, WrongState
from app.lifecycle import DeliveryMove, DeliveryStatus, NotificationType
from app.models import Delivery, Subscription
from app.models.audit import AuditEvent
from app.notifications.subscriptions import lock_subscription, try_now


def move(session: Session, which: DeliveryMove, *guard: ColumnElement[bool], **values: Any) -> None:
    """Change the status of the delivery that meets the guard, and set `values`: the only writer of statuses.

    Nothing, if no such delivery has the move.
    """
    session.execute(
        update(Delivery)
        .where(Delivery.status.in_(which.value.before), *guard)
        .values(status=which.value.after, **values),
        execution_options={"synchronize_session": "fetch"},
    )


def deliveries_of(subscription_id: UUID) -> Select[Delivery]:
    """The deliveries of a subscription, in no order: that of `created_at` and `id` has an index."""
    return select(Delivery).where(Delivery.subscription_id == subscription_id)


def send_test(session: Session, context: Context, actor: Actor, subscription_id: UUID) -> Delivery:
    """Put a test on its way to a subscription, whatever its types. Does not commit.

    Raises NotFound, and WrongState if it is disabled.
    """
    subscription = _enabled(session, subscription_id)
    now = database_now()
    test = Delivery(
        subscription_id=subscription_id, type=NotificationType.TEST.value, due_at=now, next_attempt_at=now
    )
    session.add(test)
    session.flush()
    audit.record(session, actor, AuditEvent.WEBHOOK_TESTED, subject=str(subscription_id))
    try_now(session, context, subscription)
    session.refresh(test)
    return test


def redeliver(
    session: Session, context: Context, actor: Actor, subscription_id: UUID, delivery_id: UUID
) -> Delivery:
    """Send a delivery again, with the same id, whatever became of it; it has its full time again. Does not commit.

    Raises NotFound, and WrongState if the subscription is disabled.
    """
    subscription = _enabled(session, subscription_id)
    which = Delivery.id == delivery_id, Delivery.subscription_id == subscription_id
    found = session.scalars(select(Delivery).where(*which).with_for_update()).one_or_none()
    if found is None:
        raise NotFound(f"Webhook {subscription_id} has no delivery {delivery_id}; old ones are removed.")
    found.attempts, found.due_at, found.next_attempt_at = 0, database_now(), database_now()
    session.flush()
    if found.status is not DeliveryStatus.PENDING:
        move(session, DeliveryMove.REDELIVER, *which)
    audit.record(
        session,
        actor,
        AuditEvent.WEBHOOK_REDELIVERED,
        subject=str(subscription_id),
        delivery_id=str(delivery_id),
    )
    try_now(session, context, subscription)
    return found


def _enabled(session: Session, subscription_id: UUID) -> Subscription:
    subscription = lock_subscription(session, subscription_id)
    if not subscription.is_enabled:
        raise WrongState(f"Webhook {subscription_id} is disabled: enable it first.")
    return subscription
