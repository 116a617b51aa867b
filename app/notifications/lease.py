"""The right to send to a subscription: one worker at a time, which may end at any moment."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, or_, select, update
from sqlalchemy.orm import Session, undefer

from app import lease
from app.clock import database_now, seconds_from_now
from app.context import Context
from app.db import session_scope
from app.dispatch import delivery_message, notify_after_commit
from app.lease import RELEASED
from app.lifecycle import DeliveryStatus
from app.models import Delivery, Subscription


@dataclass(frozen=True)
class Claim:
    """The lease of a subscription, and the subscription as it was claimed."""

    subscription: Subscription
    fence: int
    lease_s: float
    is_older_secret_valid: bool


def may_be_sent_to() -> ColumnElement[bool]:
    """SQL: whether the `Subscription` of the surrounding query is neither disabled, nor left alone, nor claimed."""
    is_free = or_(Subscription.lease_owner.is_(None), Subscription.lease_until < database_now())
    return and_(Subscription.is_enabled, Subscription.next_attempt_at <= database_now(), is_free)


def has_due(subscription_id: Any) -> ColumnElement[bool]:
    """SQL: whether the subscription of that id has a delivery whose time has come."""
    return exists().where(Delivery.subscription_id == subscription_id, is_due())


def is_due() -> ColumnElement[bool]:
    """SQL: whether a `Delivery` has to be sent now."""
    return and_(Delivery.status == DeliveryStatus.PENDING, Delivery.next_attempt_at <= database_now())


def claim(context: Context, subscription_id: UUID, *, owner: str) -> Claim | None:
    """Take the lease, if something is due and nobody else is at it. Commits."""
    lease_s = context.settings.lease_seconds
    claimed = (
        update(Subscription)
        .where(Subscription.id == subscription_id, may_be_sent_to(), has_due(subscription_id))
        .values(
            lease_owner=owner,
            lease_until=seconds_from_now(lease_s),
            fence=Subscription.fence + 1,
        )
        .returning(Subscription, Subscription.older_secret_until > database_now())
        .options(undefer(Subscription.secret), undefer(Subscription.older_secret))
    )
    with session_scope(context.sessions) as session:
        row = session.execute(claimed, execution_options={"populate_existing": True}).one_or_none()
    return Claim(row[0], row[0].fence, lease_s, bool(row[1])) if row else None


def write(session: Session, claim: Claim, *guards: ColumnElement[bool], **values: Any) -> Subscription:
    """Change the claimed row, and renew the lease. Raises LeaseLost, also if a guard does not hold."""
    renewed = {"lease_until": seconds_from_now(claim.lease_s), **values}
    return lease.write(session, Subscription, claim.subscription.id, claim.fence, *guards, **renewed)


def release(context: Context, claim: Claim) -> None:
    """Give the lease back, and enqueue what is due: it may have come while its worker looked for the last time.

    Commits. Raises LeaseLost.
    """
    subscription_id = claim.subscription.id
    with session_scope(context.sessions) as session:
        write(session, claim, **RELEASED)
    left = select(Subscription.id).where(
        Subscription.id == subscription_id, may_be_sent_to(), has_due(subscription_id)
    )
    with session_scope(context.sessions) as session:
        if session.scalar(left):
            notify_after_commit(session, context.publisher, delivery_message(subscription_id))


def end_claim(session: Session, subscription_id: UUID) -> None:
    """Take the lease from the worker that has it: its next write raises LeaseLost. Does not commit.

    That worker sends as the subscription was when it claimed it. What it has on its way is not recorded, so it is
    sent again.
    """
    session.execute(
        update(Subscription)
        .where(Subscription.id == subscription_id)
        .values(fence=Subscription.fence + 1, **RELEASED)
    )
