"""What a workspace still holds, read from its tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Integer,
    Select,
    Uuid,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.orm import Session, load_only

from app.cleanup import failures
from app.cleanup.kinds import KINDS, ORDER
from app.cleanup.kinds.base import Kind, ResourceKind, RowsKind
from app.cleanup.kinds.rows import HIGHEST, LOWEST
from app.clock import seconds_since
from app.lifecycle import DeletionState
from app.models import CleanupControl, Deletion
from app.models.deletion import Counts, is_on_hold

COUNT_LIMIT = 100_000
"""The most rows of a kind that one statement counts. PostgreSQL reads so many in a tenth of a second."""


@dataclass(frozen=True)
class Contents:
    """What a workspace holds, per kind; kinds with nothing are left out."""

    numbers: Counts
    at_least: list[str]
    """The kinds whose number is a lower bound."""


def first_kind(session: Session, workspace_id: UUID, deletion_id: UUID | None = None) -> Kind | None:
    """The first kind in ORDER with rows left in the workspace, apart from retained ones."""
    values = {"workspace_id": workspace_id, "deletion_id": deletion_id}
    name = session.scalar(_first_kind(but_retained=deletion_id is not None), values)
    return KINDS[name] if name else None


@cache
def _first_kind(*, but_retained: bool) -> Select[str | None]:
    """One statement: PostgreSQL tries the branches in order, and those behind the first that is true not at all."""
    workspace_id = bindparam("workspace_id", type_=Uuid)
    deletion_id = bindparam("deletion_id", type_=Uuid) if but_retained else None
    branches = [(_has_rows(kind, workspace_id, deletion_id), kind.name) for kind in ORDER]
    return select(case(*branches))


def has_rows(session: Session, kind: Kind, workspace_id: UUID, deletion_id: UUID | None = None) -> bool:
    """Whether anything of `kind` is left; with a deletion, apart from what it retains."""
    return bool(session.scalar(select(_has_rows(kind, workspace_id, deletion_id))))


def reckon(deletion: Deletion, kind: Kind) -> int:
    """How many of `kind` are left, from what there was and what went: a count takes the longer the more there are."""
    return max(0, deletion.created_counts.get(kind.name, 0) - deletion.deleted_counts.get(kind.name, 0))


def page(
    session: Session,
    kind: ResourceKind,
    workspace_id: UUID,
    deletion_id: UUID,
    *,
    after: UUID | None,
    limit: int,
) -> Sequence[Any]:
    """The next resources of a pass, by id. By id, never by offset: rows are deleted between two pages.

    They have their ids and names alone: a hundred documents of some megabytes each would not fit into a worker.
    """
    model = kind.model
    following = select(model.id).where(model.workspace_id == workspace_id).order_by(model.id)
    if after is not None:
        following = following.where(model.id > after)
    # OFFSET keeps PostgreSQL from looking up all the failures before it sorts, for a hundred rows.
    every = following.offset(0).subquery()
    ids = select(every.c.id).where(~failures.is_retained(deletion_id, kind.name, every.c.id)).limit(limit)
    query = select(model).where(model.id.in_(ids)).order_by(model.id)
    return session.scalars(
        query.options(load_only(model.id, model.workspace_id, model.name, raiseload=True))
    ).all()


def remove_row(session: Session, kind: Kind, resource_id: UUID) -> int:
    """Delete the row of a resource that is gone; 0 if another worker was quicker."""
    model = kind.model
    removed = session.execute(delete(model).where(model.id == resource_id).returning(model.id))
    return len(removed.all())


def remove_retained_rows(
    session: Session, workspace_id: UUID, deletion_id: UUID, kinds: Iterable[str], *, limit: int
) -> int:
    """Delete up to `limit` rows of skipped resources of these kinds; how many.

    What they stand for stays, recorded as failures.
    """
    removed = 0
    for kind in (KINDS[name] for name in kinds):
        model = kind.model
        is_retained = failures.is_retained(deletion_id, kind.name, model.id)
        ids = select(model.id).where(model.workspace_id == workspace_id, is_retained)
        rows = session.execute(
            delete(model).where(model.id.in_(ids.limit(limit - removed))).returning(model.id),
            execution_options={"synchronize_session": False},
        )
        removed += len(rows.all())
    return removed


def count_by_kind(session: Session, workspace_ids: Sequence[UUID]) -> dict[UUID, Contents]:
    """What each workspace holds, by kept counts, or counted no further than COUNT_LIMIT for all of them."""
    held = {workspace_id: Contents({}, []) for workspace_id in workspace_ids}
    if not held:
        return {}
    limit = max(1, COUNT_LIMIT // len(held))
    for kind, workspace_id, number in session.execute(_counts(), {"asked": list(held), "limit": limit}):
        held[workspace_id].numbers[kind] = number
        if number == limit:
            held[workspace_id].at_least.append(kind)
    for kept in ORDER:
        if isinstance(kept, RowsKind) and kept.kept_totals:
            for workspace_id, number in kept.kept_totals(session, list(held)).items():
                held[workspace_id].numbers[kept.name] = number
    return held


@cache
def _counts() -> CompoundSelect[str, UUID, int]:
    """Of all kinds that have to be counted."""
    asked = select(func.unnest(bindparam("asked", type_=ARRAY(Uuid))).label("id")).subquery()
    every = []
    for kind in ORDER:
        if isinstance(kind, RowsKind) and kind.kept_totals:
            continue
        model = kind.model
        # In an order that only the right index has: a sequential scan would pass over the rows of all others.
        some = select(model.id).where(model.workspace_id == asked.c.id).order_by(model.id)
        rows = some.limit(bindparam("limit", type_=Integer)).lateral()
        counts = select(literal(kind.name), asked.c.id, func.count()).join(rows, true())
        every.append(counts.group_by(asked.c.id))
    return union_all(*every)


def count_until(session: Session, workspace_id: UUID, *, deadline: float) -> Contents:
    """What a workspace holds, counted in bounded statements until `deadline`, a time of `monotonic()`."""
    held = count_by_kind(session, [workspace_id])[workspace_id]
    for name in list(held.at_least):
        model, number, last = KINDS[name].model, 0, UUID(int=0)
        rows = select(model.id).where(model.workspace_id == workspace_id).order_by(model.id)
        while monotonic() < deadline:
            following = rows.where(model.id > last)
            at_end = session.scalar(following.offset(COUNT_LIMIT - 1).limit(1))
            if at_end is None:
                rest = following.limit(COUNT_LIMIT).subquery()
                number += session.scalar(select(func.count()).select_from(rest)) or 0
                held.at_least.remove(name)
                break
            number, last = number + COUNT_LIMIT, at_end
        held.numbers[name] = max(held.numbers[name], number)
    return held


def why_idle(session: Session, deletion_id: UUID | None) -> str:
    """Why a deletion could not be claimed, for the operator who reads the task's result."""
    if deletion_id is None:
        return "nothing is due"
    found = session.execute(
        select(
            Deletion.state,
            Deletion.lease_owner,
            Deletion.requested_by,
            seconds_since(Deletion.lease_until).label("lapsed_s"),
            seconds_since(func.greatest(Deletion.next_run_at, Deletion.purge_after)).label("due_s"),
        ).where(Deletion.id == deletion_id)
    ).one_or_none()
    if found is None:
        return "no such deletion"
    if found.state is not DeletionState.DELETING:
        return f"it is {found.state.value}"
    if found.lapsed_s is not None and found.lapsed_s <= 0:
        return f"{found.lease_owner} works on it"
    if found.due_s < 0:
        return f"not due for {-found.due_s:.0f} s"
    if session.scalar(select(exists().where(CleanupControl.paused))):
        return "destruction is paused"
    if session.scalar(select(Deletion.id).where(Deletion.id == deletion_id, is_on_hold())):
        return f"the deletions of '{found.requested_by}' are held"
    return "another worker was quicker"


def _has_rows(
    kind: Kind, workspace_id: UUID | BindParameter[UUID], deletion_id: UUID | BindParameter[UUID] | None
) -> ColumnElement[bool]:
    # Not EXISTS: where few workspaces have most of a table, PostgreSQL expects a row of ours among the first that it
    # reads, and reads all of others if we have none. Only the index of both columns leads to this order.
    model = kind.model
    key = tuple_(model.workspace_id, model.id)
    lowest, highest = [tuple_(workspace_id, literal(end, Uuid)) for end in (LOWEST, HIGHEST)]
    first = select(model.id).where(key >= lowest, key <= highest).order_by(model.workspace_id, model.id)
    if deletion_id is not None:
        first = first.where(~failures.is_retained(deletion_id, kind.name, model.id))
    return first.limit(1).scalar_subquery().is_not(None)
