"""Role bindings: who has which role in a workspace."""

import hashlib
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, Index, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import InWorkspace, Now, String


def binding_name(workspace_id: UUID, principal: str, role: str) -> str:
    """The name of the binding for this grant; the same when the role is granted again."""
    # The workspace's id, not its name: the bindings of a restored workspace and of a successor must not share names.
    digest = hashlib.sha256(f"{principal}:{workspace_id}:{role}".encode()).hexdigest()
    return f"rb-{digest[:24]}"


class RoleBinding(InWorkspace, Base):
    """One role of one principal in one workspace. Without effect once revoked, or while the workspace is not ACTIVE."""

    __tablename__ = "role_bindings"
    __table_args__ = (
        Index("ix_role_bindings_workspace_id_id", "workspace_id", "id"),
        Index("uq_role_bindings_grant", "workspace_id", "principal", "role", unique=True),
        Index("ix_role_bindings_principal", "principal"),
        Index("ix_role_bindings_email", text('lower(principal COLLATE "C")')),
        Index("ix_role_bindings_name", "name"),
        Index(
            "ix_role_bindings_revoked_by_deletion",
            "revoked_by_deletion",
            postgresql_where=text("revoked_by_deletion IS NOT NULL"),
        ),
    )

    name: Mapped[String]
    principal: Mapped[String]
    role: Mapped[String]
    granted_by: Mapped[str] = mapped_column(Text, default="")
    granted_at: Mapped[Now]
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_by_deletion: Mapped[UUID | None]
    """The deletion that revoked it; a restore grants exactly those bindings again."""


def folded_principal(binding: type[RoleBinding]) -> ColumnElement[str]:
    """The principal as `app.access.principal.folded` makes it, if it is an email; the expression of its index."""
    return func.lower(binding.principal.collate("C"))


class PrincipalErasure(Base):
    """A principal that is being forgotten. The row goes when that is complete: nothing else joins them."""

    __tablename__ = "principal_erasures"

    pseudonym: Mapped[str] = mapped_column(Text, primary_key=True)
    names: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """Ids and emails of one principal."""
    begun_at: Mapped[Now]
