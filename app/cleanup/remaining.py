"""What a workspace still holds, read from its tables."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    ColumnElement,
    Select,
    Uuid,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.orm import Session, load_only

from app.cleanup import failures
from app.cleanup.kinds import KINDS, ORDER
from app.cleanup.kinds.base import Kind, ResourceKind
from app.cleanup.kinds.rows import HIGHEST, LOWEST
from app.clock import seconds_since
from app.lifecycle import DeletionState
from app.models import CleanupControl, Deletion, ResourceCount
from app.models.deletion import Counts, is_on_hold


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
    """How many of `kind` are left, from what there was and what went: it says the same as the report beside it."""
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


def count_by_kind(session: Session, workspace_ids: Sequence[UUID]) -> dict[UUID, Counts]:
    """What each workspace holds, from the kept counts, in ORDER; kinds with nothing are left out."""
    held: dict[UUID, Counts] = {workspace_id: {} for workspace_id in workspace_ids}
    if held:
        for workspace_id, kind, number in session.execute(_counts(), {"asked": list(held)}):
            held[workspace_id][kind] = number
    return {
        workspace_id: {kind.name: counts[kind.name] for kind in ORDER if kind.name in counts}
        for workspace_id, counts in held.items()
    }


@cache
def _counts() -> Select[UUID, str, int]:
    count, number = ResourceCount, func.sum(ResourceCount.delta).cast(BigInteger)
    asked = count.workspace_id == func.any(bindparam("asked", type_=ARRAY(Uuid)))
    whose = (count.workspace_id, count.kind)
    return select(*whose, number).where(asked).group_by(*whose).having(number > 0)


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
