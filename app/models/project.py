"""Projects: light grouping inside a workspace."""

from datetime import datetime

from sqlalchemy import DateTime, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import InWorkspace, Stamped, String


class Project(InWorkspace, Stamped, Base):
    """A project. Rows of its workspace refer to it by name."""

    __tablename__ = "projects"
    __table_args__ = (
        Index("ix_projects_workspace_id_id", "workspace_id", "id"),
        Index("uq_projects_name", "workspace_id", "name", unique=True),
        Index(
            "ix_projects_delete_requested",
            "delete_requested_at",
            postgresql_where=text("delete_requested_at IS NOT NULL"),
        ),
    )

    name: Mapped[String]
    description: Mapped[str | None] = mapped_column(Text)
    delete_requested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """Set by DELETE: nobody finds the project any more. The row keeps its name until no other row refers to it."""
