"""Deleting plain rows in chunks, so that no transaction grows with the tenant."""

from uuid import UUID

from sqlalchemy import Select, bindparam, delete, func, select, text, tuple_
from sqlalchemy.orm import Session

from app.cleanup.kinds.base import Chunk, DeleteChunk
from app.models.columns import InWorkspace

LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)
"""The ends of all ids."""

_WITHOUT_SORTING = text(
    "SELECT set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true)"
)
"""For the rest of the transaction."""


def oldest_rows_of(model: type[InWorkspace]) -> DeleteChunk:
    """A `delete_chunk` for a table whose rows do not refer to each other; it goes up the ids."""
    deletion = _deletion(model, is_youngest_first=False)

    def delete_chunk(session: Session, workspace_id: UUID, limit: int, cursor: UUID | None) -> Chunk:
        lowest = cursor or LOWEST
        return _carry_out(session, deletion, workspace_id, limit, lowest=lowest, highest=HIGHEST)

    return delete_chunk


def youngest_rows_of(model: type[InWorkspace]) -> DeleteChunk:
    """A `delete_chunk` that goes down the ids. It is one statement, so that rows may refer to others of their chunk."""
    deletion = _deletion(model, is_youngest_first=True)

    def delete_chunk(session: Session, workspace_id: UUID, limit: int, cursor: UUID | None) -> Chunk:
        highest = cursor or HIGHEST
        return _carry_out(session, deletion, workspace_id, limit, lowest=LOWEST, highest=highest)

    return delete_chunk


def _carry_out(
    session: Session, deletion: Select[int, UUID], workspace_id: UUID, limit: int, **ends: UUID
) -> Chunk:
    session.execute(_WITHOUT_SORTING)
    values = {"workspace_id": workspace_id, "limit": limit, **ends}
    return Chunk(*session.execute(deletion, values).one())


def _deletion(model: type[InWorkspace], *, is_youngest_first: bool) -> Select[int, UUID]:
    """Deletes a page of rows; returns how many there were and the id of the last one.

    Written for one plan, whatever PostgreSQL believes of a table that it has not analysed since it grew: without
    sorting, only the index of both columns leads to this order, and rows are looked up one by one by the ids of an
    array. With other plans each chunk would read the whole workspace, or the whole table.
    """
    key = tuple_(model.workspace_id, model.id)
    lowest, highest = [tuple_(bindparam("workspace_id"), bindparam(end)) for end in ("lowest", "highest")]
    page = select(model.id).where(key >= lowest, key <= highest).limit(bindparam("limit"))
    if is_youngest_first:
        page = page.order_by(model.workspace_id.desc(), model.id.desc())
    else:
        page = page.order_by(model.workspace_id, model.id)
    ids = func.array(page.scalar_subquery())
    removed = delete(model).where(model.id == func.any(ids)).returning(model.id).cte("removed")
    last = removed.c.id.asc() if is_youngest_first else removed.c.id.desc()
    cursor = select(removed.c.id).order_by(last).limit(1).scalar_subquery()
    return select(func.count(), cursor).select_from(removed)
