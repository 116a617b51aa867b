"""Notifications that are on their way, and subscriptions that get none any more."""

from collections.abc import Iterator

from prometheus_client.core import Metric
from sqlalchemy import func, literal_column, select
from sqlalchemy.orm import Session

from app.health.metrics.families import gauge
from app.models import Delivery, Subscription

_MOST_COUNTED = 100_000
"""A receiver that is away for days may have so many waiting; a scrape reads no more."""


def notification_metrics(session: Session) -> Iterator[Metric]:
    """Two statements."""
    # In the words of the partial index.
    is_pending = Delivery.status == literal_column("'PENDING'")
    enabled = select(Subscription.id).where(Subscription.is_enabled)
    some = select(Delivery.due_at).where(is_pending, Delivery.subscription_id.in_(enabled))
    pending = some.limit(_MOST_COUNTED).subquery()
    number, oldest_at = session.execute(select(func.count(), func.min(pending.c.due_at))).one()
    yield gauge(
        "workspaces_webhooks_pending",
        "Notifications that have to be sent, for the first time or again, to receivers that are not disabled; at most "
        "100000 are counted.",
        {(): number},
    )
    yield gauge(
        "workspaces_webhooks_oldest_timestamp_seconds",
        "Since when the oldest of these waits. Missing while there is none.",
        {(): oldest_at.timestamp()} if oldest_at else {},
    )
    given_up = select(func.count()).where(~Subscription.is_enabled, Subscription.disabled_reason.is_not(None))
    yield gauge(
        "workspaces_webhooks_disabled",
        "Webhooks and e-mails that were disabled because their receiver took nothing for days.",
        {(): session.scalar(given_up) or 0},
    )
