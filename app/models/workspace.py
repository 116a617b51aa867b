"""The workspace row: the boundary everything else hangs on."""

from sqlalchemy import Boolean, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.lifecycle import WorkspaceState
from app.models.columns import Id, Now, String, state_column

BUILT_IN = {
    "default": "General-purpose workspace (all users have write access)",
    "system": "Platform-provided resources (read-only for users)",
}
"""Workspaces that exist from the first start and can never be deleted, with their descriptions."""


class Workspace(Base):
    """A workspace; it is visible, and can be written to, only while ACTIVE."""

    __tablename__ = "workspaces"
    __table_args__ = (
        # Partial: the name is free the moment a deletion starts, and the successor is another row.
        Index("uq_workspaces_name_active", "name", unique=True, postgresql_where=text("state = 'ACTIVE'")),
    )

    id: Mapped[Id]
    name: Mapped[String]
    description: Mapped[str | None] = mapped_column(Text)
    state: Mapped[WorkspaceState] = mapped_column(state_column(WorkspaceState), default=WorkspaceState.ACTIVE)
    is_protected: Mapped[bool] = mapped_column(Boolean, default=False)
    created_at: Mapped[Now]
    created_by: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[Now]
    updated_by: Mapped[str | None] = mapped_column(Text)
