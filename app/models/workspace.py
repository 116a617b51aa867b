"""Workspaces: the boundary of every other resource."""

from sqlalchemy import Boolean, ColumnElement, Index, Text, literal_column, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.lifecycle import WorkspaceState
from app.models.columns import Id, Now, String, state_column

BUILT_IN = {
    "default": "General-purpose workspace (all users have write access)",
    "system": "Platform-provided resources (read-only for users)",
}
"""The built-in workspaces and their descriptions. They exist from the first start and cannot be deleted."""


class Workspace(Base):
    """A workspace. It can be read and written only while ACTIVE."""

    __tablename__ = "workspaces"
    __table_args__ = (
        # Partial: a name is free as soon as a deletion starts; its successor is another row.
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


def is_active(workspace: type[Workspace] = Workspace) -> ColumnElement[bool]:
    """A condition: the workspace is in use.

    A literal, as in the index of names: a parameter would not match that index once a plan is generic.
    """
    return workspace.state == literal_column(f"'{WorkspaceState.ACTIVE}'")
