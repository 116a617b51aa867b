"""Entities: plain rows that form trees, removed from the leaves up."""

from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from app.cleanup.kinds.base import RowsKind
from app.models import Entity


def _delete_chunk(session: Session, workspace_id: UUID, limit: int, cursor: UUID | None) -> list[UUID]:
    """Remove the youngest entities that have no child outside the chunk; it goes down the ids.

    Ids grow with time and a child is younger than its parent, so the youngest page holds whole branches: a
    chain of a thousand descendants goes in one chunk. The foreign key is checked when the statement ends.
    Where clocks were wrong, children are older than their parents: then leaves go first, wherever they are.
    """
    page = select(Entity.id).where(Entity.workspace_id == workspace_id).limit(limit)
    youngest = page.order_by(Entity.id.desc())
    if cursor is not None:
        return _delete(session, workspace_id, youngest.where(Entity.id < cursor))
    return _delete(session, workspace_id, youngest) or _delete(
        session, workspace_id, page.where(~_has_child(workspace_id)).order_by(Entity.id)
    )


def _delete(session: Session, workspace_id: UUID, page: Select[UUID]) -> list[UUID]:
    """Remove those of the page that have no child outside it; their ids, the youngest first.

    None of them where one that stays is the child of one that goes, which wrong clocks alone bring about.
    """
    chosen = page.cte("page")
    in_page = select(chosen.c.id)
    is_free = ~_has_child(workspace_id, in_page)
    statement = (
        delete(Entity)
        .where(Entity.workspace_id == workspace_id, Entity.id.in_(in_page), is_free)
        .returning(Entity.id)
    )
    try:
        with session.begin_nested():
            removed = session.scalars(statement, execution_options={"synchronize_session": False}).all()
    except IntegrityError:
        return []
    return sorted(removed, reverse=True)


def _has_child(workspace_id: UUID, besides: Select[UUID] | None = None) -> ColumnElement[bool]:
    child = aliased(Entity)
    conditions = [child.workspace_id == workspace_id, child.parent_id == Entity.id]
    if besides is not None:
        conditions.append(child.id.not_in(besides))
    return exists().where(*conditions)


KIND = RowsKind("entities", Entity, _delete_chunk)
