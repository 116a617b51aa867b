"""Deleting plain rows in chunks, so that no transaction grows with the tenant."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session


def oldest_rows_of(model: type[Any]) -> Callable[[Session, UUID, int], int]:
    """A `delete_chunk` for a table whose rows do not refer to each other."""

    def delete_chunk(session: Session, workspace_id: UUID, limit: int) -> int:
        page = select(model.id).where(model.workspace_id == workspace_id).order_by(model.id).limit(limit)
        removed = session.execute(
            delete(model).where(model.id.in_(page)).returning(model.id),
            execution_options={"synchronize_session": False},
        )
        return len(removed.all())

    return delete_chunk
