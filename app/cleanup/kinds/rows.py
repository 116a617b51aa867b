"""Deleting plain rows in chunks, so that no transaction grows with the tenant."""

from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.cleanup.kinds.base import DeleteChunk


def oldest_rows_of(model: type[Any]) -> DeleteChunk:
    """A `delete_chunk` for a table whose rows do not refer to each other; it goes up the ids."""

    def delete_chunk(session: Session, workspace_id: UUID, limit: int, cursor: UUID | None) -> list[UUID]:
        page = select(model.id).where(model.workspace_id == workspace_id).order_by(model.id).limit(limit)
        if cursor is not None:
            page = page.where(model.id > cursor)
        removed = session.scalars(
            delete(model).where(model.id.in_(page)).returning(model.id),
            execution_options={"synchronize_session": False},
        )
        return sorted(removed)

    return delete_chunk
