"""Entities: plain rows that form trees, removed from the leaves up."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, cast, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from app.cleanup.kinds.base import Chunk, RowsKind
from app.cleanup.kinds.rows import youngest_rows_of
from app.models import Entity

_delete_youngest = youngest_rows_of(Entity)


def _delete_chunk(session: Session, workspace_id: UUID, limit: int, cursor: UUID | None) -> Chunk:
    """Remove the youngest entities, in one statement; it goes down the ids.

    Ids grow with time and a child is younger than its parent, so the youngest page holds whole branches: a chain of a
    thousand descendants goes in one chunk. That no child is left is checked when the statement ends: the page is
    refused where clocks were wrong and one that stays is the child of one that goes.
    """
    try:
        with session.begin_nested():
            return _delete_youngest(session, workspace_id, limit, cursor)
    except IntegrityError:
        return _delete_childless(session, workspace_id, limit, cursor)


def _delete_childless(session: Session, workspace_id: UUID, limit: int, cursor: UUID | None) -> Chunk:
    """Remove those of the youngest page that have no child outside it, or at its start leaves, wherever they are."""
    page = select(Entity.id).where(Entity.workspace_id == workspace_id).limit(limit)
    youngest = page.order_by(Entity.id.desc())
    if cursor is not None:
        youngest = youngest.where(Entity.id <= cursor)
    try:
        with session.begin_nested():
            chunk = _delete(session, workspace_id, session.scalars(youngest).all())
    except IntegrityError:  # a child of one that goes has a child itself, and stays
        chunk = Chunk(0, None)
    if chunk.removed or cursor is not None:
        return chunk
    leaves = page.where(~_has_child(workspace_id)).order_by(Entity.id)
    return _delete(session, workspace_id, session.scalars(leaves).all())


def _delete(session: Session, workspace_id: UUID, ids: Sequence[UUID]) -> Chunk:
    """Remove those of the entities that have no child besides these."""
    among = func.any(cast(ids, ARRAY(Uuid)))
    is_free = ~_has_child(workspace_id, besides=ids)
    removed = session.scalars(
        delete(Entity).where(Entity.id == among, is_free).returning(Entity.id),
        execution_options={"synchronize_session": False},
    ).all()
    return Chunk(len(removed), min(removed, default=None))


def _has_child(workspace_id: UUID, *, besides: Sequence[UUID] = ()) -> ColumnElement[bool]:
    child = aliased(Entity)
    children = select(child.id).where(
        child.workspace_id == workspace_id,
        child.parent_id == Entity.id,
        child.id != func.all(cast(besides, ARRAY(Uuid))),
    )
    # OFFSET keeps PostgreSQL from making a join of it: it is one look into the index for each row.
    return children.offset(0).exists()


KIND = RowsKind("entities", Entity, _delete_chunk)
