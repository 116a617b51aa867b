"""Filesets: named sets of files in the blob store."""

from typing import Any

from sqlalchemy import Index, Text
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
