"""Generic entities: typed, versioned documents, arranged as trees."""

from uuid import UUID

from sqlalchemy import Index, Integer, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import InWorkspace, Json, Stamped, String, project_index


class Entity(InWorkspace, Stamped, Base):
    """A document of some type. A child and its parent are in the same workspace.

    Triggers see to that, as a foreign key of both columns would: no deletion reaches another workspace, and none leaves
    a child behind.
    """

    __tablename__ = "entities"
    __table_args__ = (
        UniqueConstraint("workspace_id", "id", name="uq_entities_workspace_id_id"),
        Index("ix_entities_parent", "workspace_id", "parent_id"),
        project_index("entities"),
        # What lists sort by, each with the key that breaks ties.
        Index("ix_entities_created_at", "workspace_id", "entity_type", "created_at", "id"),
        Index("ix_entities_updated_at", "workspace_id", "entity_type", "updated_at", "id"),
        Index("ix_entities_name", "workspace_id", "entity_type", "name", "id"),
        Index("ix_entities_data", "data", postgresql_using="gin", postgresql_ops={"data": "jsonb_path_ops"}),
        # Only where the extension pg_trgm is: nothing depends on it but the time of a search.
        Index(
            "ix_entities_part_of_name",
            "name",
            postgresql_using="gin",
            postgresql_ops={"name": "gin_trgm_ops"},
        ),
        Index(
            "uq_entities_name",
            "workspace_id",
            "entity_type",
            "parent_id",
            "name",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
    )

    entity_type: Mapped[String]
    name: Mapped[String]
    parent_id: Mapped[UUID | None]
    project: Mapped[str | None] = mapped_column(Text)
    data: Mapped[Json]
    db_version: Mapped[int] = mapped_column(Integer, default=1)
