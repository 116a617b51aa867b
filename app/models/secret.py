"""Secrets: named values that only jobs and the platform's services read."""

from sqlalchemy import Index, LargeBinary, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import InWorkspace, Stamped, String


class Secret(InWorkspace, Stamped, Base):
    """A secret. Its value is encrypted by a key that the database does not have."""

    __tablename__ = "secrets"
    __table_args__ = (
        Index("ix_secrets_workspace_id_id", "workspace_id", "id"),
        Index("uq_secrets_name", "workspace_id", "name", unique=True),
        Index("ix_secrets_created_at", "workspace_id", "created_at", "id"),
        Index("ix_secrets_key_id", "key_id", "id"),
    )

    name: Mapped[String]
    description: Mapped[str | None] = mapped_column(Text)
    key_id: Mapped[String]
    """Which key has encrypted the value: see `app.services.secrets.encryption`."""
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    """The value, encrypted for this row alone. Read only where the value is needed."""
