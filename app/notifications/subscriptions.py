"""Subscriptions: who is notified of what. They belong to the platform; its administrators manage them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, undefer
from uuid_utils.compat import uuid7

from app.access import audit
from app.access.authorize import Actor
from app.clock import database_now, seconds_from_now
from app.context import Context
from app.dispatch import delivery_message, notify_after_commit
from app.errors import Conflict, NotFound, SecretUnreadable, WrongState
from app.lifecycle import NOTIFIED_EVENTS, DeliveryStatus, NotificationType
from app.models import Delivery, Subscription
from app.models.audit import AuditEvent
from app.notifications.lease import end_claim
from app.notifications.receivers import MAILTO, receiver_of, require_receiver
from app.notifications.signing import new_secret, open_secret, seal_secret
from app.services.secrets.encryption import Keyring

MOST = 100
"""Subscriptions: each costs a row for every event that it hears of."""

TYPES = tuple(dict.fromkeys(NOTIFIED_EVENTS.values()))
"""What one can subscribe to."""

_OLDER_SECRET_S = 24 * 3600.0
"""How long the secret before a rotation signs, too: so long receivers have to learn the new one."""

_REMOVED_AT_ONCE = 10_000
"""Deliveries that go with their subscription; its others go when they are old."""


@dataclass(frozen=True)
class SubscriptionChange:
    """What becomes of a subscription; None leaves it as it is."""

    url: str | None = None
    types: Sequence[NotificationType] | None = None
    description: str | None = None
    is_enabled: bool | None = None


def create_subscription(
    session: Session,
    context: Context,
    actor: Actor,
    *,
    url: str,
    types: Sequence[NotificationType],
    description: str = "",
) -> tuple[Subscription, str | None]:
    """Subscribe a URL; the subscription, and its secret, which is shown this once. E-mail has none.

    Raises BadRequest and WrongState for a URL that cannot be notified, Conflict if there are too many, and
    SecretsDisabled without keys.
    """
    require_receiver(context.settings, url)
    # Otherwise two at once would each be the last that there is room for. It ends with the transaction.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("workspaces webhooks", 0))))
    if (session.scalar(select(func.count()).select_from(Subscription)) or 0) >= MOST:
        raise Conflict(f"There are {MOST} webhooks already, which is the most: delete one first.")
    subscription = Subscription(
        id=uuid7(),
        url=url,
        types=list(types),
        description=description,
        created_by=actor.id,
        updated_by=actor.id,
    )
    secret = None
    if not url.startswith(MAILTO):
        secret = new_secret()
        sealed = seal_secret(Keyring.read(context.settings), subscription.id, secret)
        subscription.key_id, subscription.secret = sealed.key_id, sealed.ciphertext
    session.add(subscription)
    session.flush()  # its times come from the database
    _record(session, actor, AuditEvent.WEBHOOK_CREATED, subscription, types=list(types))
    return subscription, secret


def find_subscription(session: Session, subscription_id: UUID) -> Subscription:
    """The subscription of that id. Raises NotFound."""
    return _found(session.get(Subscription, subscription_id), subscription_id)


def lock_subscription(session: Session, subscription_id: UUID) -> Subscription:
    """The same, locked for a change, with its secrets. Raises NotFound."""
    query = (
        select(Subscription)
        .where(Subscription.id == subscription_id)
        .options(undefer(Subscription.secret), undefer(Subscription.older_secret))
        .with_for_update()
    )
    return _found(session.scalars(query).one_or_none(), subscription_id)


def update_subscription(
    session: Session, context: Context, actor: Actor, subscription_id: UUID, change: SubscriptionChange
) -> Subscription:
    """Change a subscription, also for the worker that is sending to it.

    One that is enabled again is sent what is left, for which it has its full time again. Raises NotFound, and for a URL
    as `create_subscription`.
    """
    subscription = lock_subscription(session, subscription_id)
    before = subscription.url, subscription.is_enabled
    _apply(context, subscription, change)
    if not session.is_modified(subscription):
        return subscription
    subscription.updated_at, subscription.updated_by = database_now(), actor.id
    session.flush()
    _record(
        session,
        actor,
        AuditEvent.WEBHOOK_UPDATED,
        subscription,
        types=subscription.types if change.types is not None else None,
        is_enabled=change.is_enabled,
    )
    if (subscription.url, subscription.is_enabled) != before:
        end_claim(session, subscription_id)
    if subscription.is_enabled:
        _end_pauses(session, subscription)
        try_now(session, context, subscription)
    return subscription


def _apply(context: Context, subscription: Subscription, change: SubscriptionChange) -> None:
    if change.url is not None and change.url != subscription.url:
        require_receiver(context.settings, change.url)
        if change.url.startswith(MAILTO) != subscription.url.startswith(MAILTO):
            raise Conflict("A webhook cannot become an e-mail, nor the other way round: create another one.")
        subscription.url = change.url
    if change.types is not None:
        subscription.types = list(change.types)
    if change.description is not None:
        subscription.description = change.description
    if change.is_enabled is not None:
        subscription.disabled_reason = None  # an administrator knows of it now, and the alert ends
        if change.is_enabled and not subscription.is_enabled:
            subscription.enabled_at = database_now()
        subscription.is_enabled = change.is_enabled


def delete_subscription(session: Session, actor: Actor, subscription_id: UUID) -> None:
    """Delete a subscription: nothing more is sent to it, not even what was on its way. Raises NotFound."""
    subscription = lock_subscription(session, subscription_id)
    of_it = select(Delivery.id).where(Delivery.subscription_id == subscription_id)
    some = of_it.limit(_REMOVED_AT_ONCE).cte("some")
    session.execute(
        delete(Delivery).where(Delivery.id == some.c.id), execution_options={"synchronize_session": False}
    )
    session.delete(subscription)
    _record(session, actor, AuditEvent.WEBHOOK_DELETED, subscription)


def rotate_secret(
    session: Session, context: Context, actor: Actor, subscription_id: UUID
) -> tuple[Subscription, str]:
    """Give a webhook another secret, which is shown this once; the one before it signs, too, for a day.

    Both sign what is sent from now on, also by a worker that is sending. Raises NotFound, WrongState for e-mail, and
    SecretsDisabled without keys.
    """
    subscription = lock_subscription(session, subscription_id)
    if subscription.secret is None:
        raise WrongState("An e-mail is not signed: it has no secret.")
    keys, secret = Keyring.read(context.settings), new_secret()
    older = None
    with suppress(SecretUnreadable):  # then it has signed nothing lately, and cannot any more
        older = open_secret(keys, subscription, subscription.secret)
    sealed = seal_secret(keys, subscription_id, secret)
    subscription.key_id, subscription.secret = sealed.key_id, sealed.ciphertext
    subscription.older_secret = seal_secret(keys, subscription_id, older).ciphertext if older else None
    subscription.older_secret_until = seconds_from_now(_OLDER_SECRET_S)
    subscription.updated_at, subscription.updated_by = database_now(), actor.id
    session.flush()
    _record(session, actor, AuditEvent.WEBHOOK_SECRET_ROTATED, subscription)
    end_claim(session, subscription_id)
    notify_after_commit(session, context.publisher, delivery_message(subscription_id))
    return subscription, secret


def try_now(session: Session, context: Context, subscription: Subscription) -> None:
    """Do not leave its receiver alone any longer, and enqueue what is due. Does not commit."""
    subscription.failures, subscription.next_attempt_at = 0, database_now()
    session.flush()
    notify_after_commit(session, context.publisher, delivery_message(subscription.id))


def _end_pauses(session: Session, subscription: Subscription) -> None:
    """Let all that waits for another attempt be due: its receiver may be mended, or another one."""
    session.execute(
        update(Delivery)
        .where(
            Delivery.subscription_id == subscription.id,
            Delivery.status == DeliveryStatus.PENDING,
            Delivery.next_attempt_at > database_now(),
        )
        .values(next_attempt_at=database_now()),
        execution_options={"synchronize_session": False},
    )


def _found(subscription: Subscription | None, subscription_id: UUID) -> Subscription:
    if subscription is None:
        raise NotFound(f"Webhook {subscription_id} not found")
    return subscription


def _record(
    session: Session, actor: Actor, event: AuditEvent, subscription: Subscription, **detail: Any
) -> None:
    audit.record(
        session, actor, event, subject=str(subscription.id), receiver=receiver_of(subscription.url), **detail
    )
