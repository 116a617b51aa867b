"""Notifications: who is told of deletions, and what is on the way to whom.

Subscriptions belong to the platform, not to a workspace: they would go with it. No foreign key leads from a delivery to
its subscription or its event: the transaction of an event must not wait for who changes a subscription.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, DateTime, Index, Integer, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.lifecycle import DeliveryStatus
from app.models.columns import Leased, Now, Stamped, String, Time, state_column


class Subscription(Leased, Stamped, Base):
    """Where notifications of some types go: the URL of a webhook, or an address of e-mail. Leased by who sends them."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        Index("ix_subscriptions_created_at", "created_at", "id"),
        Index("ix_subscriptions_key_id", "key_id", "id", postgresql_where=text("key_id IS NOT NULL")),
    )

    url: Mapped[String]
    """`https://…`, or `mailto:` and an address. A path may be all that protects a receiver: it stands in no log."""
    types: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """Members of `NotificationType`."""
    description: Mapped[str] = mapped_column(Text, default="")
    is_enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    enabled_at: Mapped[Now]
    """When it was last enabled: what was on the way before has its full time again."""
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    """Why the product has disabled it; None if an administrator has."""

    failures: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """Attempts since the last one that succeeded."""
    next_attempt_at: Mapped[Now]
    """Nothing is sent before: a receiver that is away is tried with one delivery at a time."""
    last_success_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_enqueued_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When the sweep last enqueued a message for it."""

    key_id: Mapped[str | None] = mapped_column(Text)
    """Which key has encrypted its secrets: see `app.services.secrets.encryption`. None for e-mail, which has none."""
    secret: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    """What signs, encrypted for this row alone."""
    older_secret: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    """The one before the last rotation, which signs too, encrypted by the same key."""
    older_secret_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Delivery(Base):
    """The sending of one event to one subscription: inserted with the event, by `app.cleanup.history` alone.

    It names nobody and quotes nothing: what is sent is read from the event.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("ix_deliveries_subscription_id", "subscription_id", "created_at", "id"),
        Index(
            "ix_deliveries_pending",
            "subscription_id",
            "next_attempt_at",
            "created_at",
            postgresql_where=text("status = 'PENDING'"),
        ),
        Index("ix_deliveries_created_at", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    """Also the id of the message, which stays the same however often it is sent."""
    subscription_id: Mapped[UUID]
    event_id: Mapped[int | None] = mapped_column(BigInteger)
    """The `DeletionEvent`; None for a test."""
    type: Mapped[String]
    created_at: Mapped[Now]
    status: Mapped[DeliveryStatus] = mapped_column(
        state_column(DeliveryStatus), default=DeliveryStatus.PENDING, server_default="PENDING"
    )
    due_at: Mapped[Time]
    """When it was created, or when somebody last asked for it again: its time runs from then."""
    attempts: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    next_attempt_at: Mapped[Time]
    last_attempt_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    answer_code: Mapped[int | None] = mapped_column(Integer)
    """The status of the last answer; None if there was none."""
    error: Mapped[str | None] = mapped_column(Text)
    """Why the last attempt failed."""
