"""Access keys: tokens of our own, which a principal makes for its programs. What a key may do is not in its row."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Index, Text, and_, case, literal, or_, text
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import database_now
from app.db import Base
from app.lifecycle import AccessKeyHolder, AccessKeyStatus
from app.models.columns import Now, String, state_column


class AccessKey(Base):
    """An access key. Neither its token nor anything that could make one is stored.

    It belongs to no workspace, because it is its holder's: the roles of the holder say where it can be used.
    """

    __tablename__ = "access_keys"
    __table_args__ = (
        Index("ix_access_keys_holder", "holder", "principal", "created_at"),
        Index("ix_access_keys_ended_at", text("LEAST(revoked_at, expires_at)")),
    )

    jti: Mapped[str] = mapped_column(Text, primary_key=True)
    """The id of its token."""
    holder: Mapped[AccessKeyHolder] = mapped_column(state_column(AccessKeyHolder))
    principal: Mapped[String]
    """Whom its caller is: the id of a user or of a service account."""
    email: Mapped[str] = mapped_column(Text, default="")
    """The user's email when the key was made, which was proved then; empty for a service account."""
    name: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[Now]
    created_by: Mapped[String]
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    suspended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


def key_status(key: type[AccessKey] = AccessKey) -> ColumnElement[str]:
    """The status of a key by the database's clock, the final ones first."""
    known: tuple[tuple[ColumnElement[bool], Any], ...] = (
        (key.revoked_at.is_not(None), literal(AccessKeyStatus.REVOKED, Text)),
        (key.expires_at <= database_now(), literal(AccessKeyStatus.EXPIRED, Text)),
        (key.suspended_at.is_not(None), literal(AccessKeyStatus.SUSPENDED, Text)),
    )
    return case(*known, else_=literal(AccessKeyStatus.ACTIVE, Text))


def is_in_force(key: type[AccessKey]) -> ColumnElement[bool]:
    """A condition: the status of the key is ACTIVE."""
    has_not_expired = or_(key.expires_at.is_(None), key.expires_at > database_now())
    return and_(key.revoked_at.is_(None), key.suspended_at.is_(None), has_not_expired)
