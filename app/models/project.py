"""Projects: light grouping inside a workspace."""

from sqlalchemy import Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import InWorkspace, Stamped, String


class Project(InWorkspace, Stamped, Base):
    """A project."""

    __tablename__ = "projects"
    __table_args__ = (
        Index("ix_projects_workspace_id_id", "workspace_id", "id"),
        Index("uq_projects_name", "workspace_id", "name", unique=True),
    )

    name: Mapped[String]
    description: Mapped[str | None] = mapped_column(Text)
