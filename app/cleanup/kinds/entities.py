"""Entities: plain rows that form trees, removed from the leaves up."""

from uuid import UUID

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session, aliased

from app.cleanup.kinds.base import RowsKind
from app.models import Entity


def _delete_chunk(session: Session, workspace_id: UUID, limit: int) -> int:
    """Remove the youngest entities that have no child outside the chunk.

    Ids grow with time and a child is younger than its parent, so the youngest page holds whole branches: a
    chain of a thousand descendants goes in one chunk. The foreign key is checked when the statement ends.
    """
    child = aliased(Entity)
    page = (
        select(Entity.id)
        .where(Entity.workspace_id == workspace_id)
        .order_by(Entity.id.desc())
        .limit(limit)
        .cte("page")
    )
    in_page = select(page.c.id)
    has_child_outside = exists().where(
        child.workspace_id == workspace_id, child.parent_id == Entity.id, child.id.not_in(in_page)
    )
    removed = session.execute(
        delete(Entity)
        .where(Entity.workspace_id == workspace_id, Entity.id.in_(in_page), ~has_child_outside)
        .returning(Entity.id),
        execution_options={"synchronize_session": False},
    )
    return len(removed.all())


KIND = RowsKind("entities", Entity, _delete_chunk)
