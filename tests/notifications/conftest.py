"""Subscriptions and receivers for the tests of notifications."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cleanup.engine import run_slice
from app.cleanup.requests import request_deletion
from app.context import Context
from app.db import session_scope
from app.dispatch import NOTIFY_QUEUE
from app.models import Delivery, Subscription
from app.notifications import subscriptions
from app.notifications.sending import send_due
from tests.notifications.receiver import Mailbox, Receiver, mailbox, receiving
from tests.support.actors import trusted
from tests.support.publisher import RecordingPublisher

ROOT = trusted("root")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as one:
        yield one


@pytest.fixture
def context(context: Context) -> Context:
    """One that lets webhooks go to loopback, where the receivers of tests are."""
    return with_settings(context, webhooks_to_private_addresses=True)


def with_settings(context: Context, **changes: Any) -> Context:
    return replace(context, settings=context.settings.model_copy(update=changes))


@dataclass(frozen=True)
class Subscribed:
    """A subscription, and the secret of its receiver."""

    id: UUID
    secret: str


@pytest.fixture
def subscribe(context: Context) -> Callable[..., Subscribed]:
    """Subscribe a URL to everything, or to some types."""

    def subscribe(url: str, types: Any = subscriptions.TYPES, *, of: Context = context) -> Subscribed:
        with session_scope(of.sessions) as session:
            made, secret = subscriptions.create_subscription(session, of, ROOT, url=url, types=types)
        return Subscribed(made.id, secret or "")

    return subscribe


@pytest.fixture
def delete(context: Context) -> Callable[[str], UUID]:
    """Request the deletion of a workspace."""

    def delete(name: str) -> UUID:
        with session_scope(context.sessions) as session:
            return request_deletion(session, context, ROOT, name).id

    return delete


@pytest.fixture
def finish(context: Context) -> Callable[[UUID], None]:
    """Work on a deletion once, which is enough for one without contents."""

    def finish(deletion_id: UUID) -> None:
        run_slice(context, deletion_id, owner="worker")

    return finish


@pytest.fixture
def send(context: Context) -> Callable[..., str | None]:
    """What the worker does with a message."""

    def send(subscription: Subscribed, *, of: Context = context) -> str | None:
        return send_due(of, subscription.id, owner="sender")

    return send


def the(session: Session, subscription: Subscribed) -> Subscription:
    """The subscription as it is in the database now."""
    session.rollback()
    return session.get_one(Subscription, subscription.id, populate_existing=True)


def deliveries(session: Session, subscription: Subscribed | None = None) -> list[Delivery]:
    """All deliveries, the oldest first, as they are now."""
    session.rollback()
    query = select(Delivery).order_by(Delivery.created_at, Delivery.event_id)
    if subscription:
        query = query.where(Delivery.subscription_id == subscription.id)
    return list(session.scalars(query.execution_options(populate_existing=True)))


def notified(publisher: RecordingPublisher) -> list[str]:
    """The subscriptions that messages are about."""
    return [one.facts["subscription_id"] for one in publisher.published if one.queue == NOTIFY_QUEUE]
