"""Filesets: named sets of files in the blob store. And the store that belongs to this database."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, Index, Integer, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import InWorkspace, Json, Stamped, String, project_index


class Fileset(InWorkspace, Stamped, Base):
    """A fileset. Its bytes are stored under the ids of workspace and fileset; no successor of a name inherits them."""

    __tablename__ = "filesets"
    __table_args__ = (
        Index("ix_filesets_workspace_id_id", "workspace_id", "id"),
        Index("uq_filesets_name", "workspace_id", "name", unique=True),
        Index("ix_filesets_created_at", "workspace_id", "created_at", "id"),
        project_index("filesets", where="project <> ''"),
    )

    name: Mapped[String]
    description: Mapped[str] = mapped_column(Text, default="")
    project: Mapped[str] = mapped_column(Text, default="")
    purpose: Mapped[str] = mapped_column(Text, default="generic")
    details: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSONB(none_as_null=True))
    """`metadata` in the API; that name is reserved by the declarative base."""
    custom_fields: Mapped[Json]


class StoreRecord(Base):
    """The single row that says which store holds the files. Written by `app.store_identity` alone.

    Without it nothing was ever stored: only a fileset, as long as nobody has uploaded a file.
    """

    __tablename__ = "store"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, default=1)
    store: Mapped[str | None] = mapped_column(Text)
    """The id in the marker of the store; None while it is not known which store has the files of an older release."""
    adopted_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    adopted_by: Mapped[str | None] = mapped_column(Text)
    """Who ran `workspaces store adopt`; None for a store that was taken at its first use."""
