"""The store that belongs to this database."""

from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, Integer, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import String


class StoreRecord(Base):
    """The single row that says which store holds the files. Written by `app.store_identity` alone."""

    __tablename__ = "store"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, default=1)
    store: Mapped[String]
    """The id in the marker of the store."""
    adopted_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    adopted_by: Mapped[str | None] = mapped_column(Text)
    """Who ran `workspaces store adopt`; None for a store that was taken at its first use."""
