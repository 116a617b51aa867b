"""How many resources there are, kept by the database."""

from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Identity, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import String


class ResourceCount(Base):
    """How the number of resources of one kind in one workspace has changed: their sum is how many there are.

    Appended by triggers of the kind's table in the transaction of each change, so that no two writers wait for each
    other. Without a foreign key: the last rows of a workspace may stay until they are folded, after it has gone.
    """

    __tablename__ = "resource_counts"
    __table_args__ = (
        Index("ix_resource_counts_sum", "workspace_id", "kind", "entity_type", postgresql_include=["delta"]),
        Index("ix_resource_counts_new", "id", postgresql_where=text("NOT is_folded")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    workspace_id: Mapped[UUID]
    kind: Mapped[String]
    """The name of the kind, which is that of its table."""
    entity_type: Mapped[String]
    """Entities are counted by type; of the other kinds it is empty."""
    delta: Mapped[int] = mapped_column(BigInteger)
    is_folded: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    """Whether it is the sum of earlier rows."""
