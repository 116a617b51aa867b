"""The notifications' part of the sweep: enqueue what is due."""

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.clock import database_now, seconds_from_now
from app.dispatch import Message, delivery_message
from app.models import Subscription
from app.notifications.lease import has_due, may_be_sent_to


def due_messages(session: Session, *, requeue_s: float) -> list[Message]:
    """Messages for the subscriptions with something due that were not enqueued for `requeue_s` seconds.

    Notes them as enqueued. There are no more of them than subscriptions may be. Does not commit.
    """
    not_lately = or_(
        Subscription.last_enqueued_at.is_(None),
        Subscription.last_enqueued_at < seconds_from_now(-requeue_s),
    )
    due = select(Subscription.id).where(may_be_sent_to(), not_lately, has_due(Subscription.id))
    found = session.scalars(due.with_for_update(skip_locked=True)).all()
    if found:
        noted = update(Subscription).where(Subscription.id.in_(found))
        session.execute(noted.values(last_enqueued_at=database_now()))
    return [delivery_message(subscription_id) for subscription_id in found]
