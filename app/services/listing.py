"""The rows of a list, of one workspace or of every workspace that the caller can read, and how many entities there are.

The database keeps the number of entities: counting a million takes longer than reading a page of them.
"""

from dataclasses import replace
from functools import cache, partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Executable,
    Select,
    Text,
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import Session

from app.access.authorize import Access, Actor, permitted, still_authentic
from app.access.listed import EveryWorkspace, Listed
from app.models import Entity, ResourceCount, Workspace
from app.models.workspace import is_active
from app.services.workspaces import is_readable, readable_workspace_id

EVERYWHERE = "-"
"""Reserved name: in the path of a list it means all workspaces."""

_FOLDED_AT_ONCE = 10_000

_WORKSPACE_ID = bindparam("workspace_id", type_=Uuid)
_TYPE = bindparam("entity_type", type_=Text)
_IS_OF_TYPE = Entity.entity_type == _TYPE
_OF_TYPE = (ResourceCount.kind == Entity.__tablename__, ResourceCount.entity_type == _TYPE)


def rows_in(session: Session, actor: Actor, workspace: str, model: Any) -> Listed:
    """The rows in one workspace, or for `-` in every workspace where the actor has its permission, with its name.

    Raises as `readable_workspace` does.
    """
    if workspace == EVERYWHERE:
        rows = _rows(model, actor.access, is_everywhere=True)
        return Listed(
            rows,
            actor.parameters,
            partial(still_authentic, actor),
            everywhere=_everywhere(model, actor.access),
        )
    workspace_id = readable_workspace_id(session, actor, workspace)
    return Listed(
        _rows(model, actor.access, is_everywhere=False),
        {**actor.parameters, "workspace_id": workspace_id},
        partial(is_readable, actor, workspace_id),
        _number_in_one(model),
    )


def workspaces_of(actor: Actor) -> Listed:
    """The ACTIVE workspaces where the actor has its permission."""
    return Listed(_workspaces(actor.access), actor.parameters, partial(still_authentic, actor))


def entities_in(session: Session, actor: Actor, workspace: str, entity_type: str) -> Listed:
    """The entities of a type, as `rows_in`. Their number is kept."""
    found = rows_in(session, actor, workspace, Entity).where(_IS_OF_TYPE, entity_type=entity_type)
    is_everywhere = workspace == EVERYWHERE
    return replace(found, total=_kept_everywhere(actor.access) if is_everywhere else _kept_in_one())


@cache
def _workspaces(access: Access) -> Select[*tuple[Any, ...]]:
    return select(Workspace).where(is_active(), permitted(access, in_many=True))


@cache
def _rows(model: Any, access: Access, *, is_everywhere: bool) -> Select[*tuple[Any, ...]]:
    rows = select(model, Workspace.name).join(Workspace, Workspace.id == model.workspace_id)
    found = rows.where(is_active(), permitted(access, in_many=is_everywhere))
    return found if is_everywhere else found.where(Workspace.id == _WORKSPACE_ID)


@cache
def _everywhere(model: Any, access: Access) -> EveryWorkspace:
    return EveryWorkspace(model, (is_active(), permitted(access, in_many=True)))


@cache
def _number_in_one(model: Any) -> Select[int]:
    """How many there are in the workspace that a statement with the conditions of access has found."""
    return select(func.count()).select_from(model).where(model.workspace_id == _WORKSPACE_ID)


@cache
def _kept_in_one() -> Select[int]:
    """The same of the entities of a type."""
    total = func.coalesce(func.sum(ResourceCount.delta), 0)
    return select(total).where(ResourceCount.workspace_id == _WORKSPACE_ID, *_OF_TYPE)


@cache
def _kept_everywhere(access: Access) -> Select[int]:
    return (
        select(func.coalesce(func.sum(ResourceCount.delta), 0))
        .join(Workspace, Workspace.id == ResourceCount.workspace_id)
        .where(is_active(), permitted(access, in_many=True), *_OF_TYPE)
    )


def fold_counts(session: Session) -> None:
    """Replace the changes of each kind, of entities of each type, in each workspace by their sum, if it is not zero.

    Takes up to `_FOLDED_AT_ONCE` of those that came since the last time. Any number of processes may do so at once:
    each adds up what it has itself deleted.
    """
    session.execute(_folding())


@cache
def _folding() -> Executable:
    """The statement of a fold: to put it together takes longer than to carry it out."""
    count = ResourceCount
    counted = ("workspace_id", "kind", "entity_type")
    new = (
        select(count.id, *(getattr(count, name) for name in counted))
        .where(~count.is_folded)
        .order_by(count.id)
        .limit(_FOLDED_AT_ONCE)
        .with_for_update(skip_locked=True)
        .cte("new")
    )
    earlier = select(count.id).where(
        count.is_folded, *(getattr(count, name) == new.c[name] for name in counted)
    )
    removed = (
        delete(count)
        .where(count.id.in_(union_all(select(new.c.id), earlier)))
        .returning(*(getattr(count, name) for name in counted), count.delta)
        .cte("removed")
    )
    whose, number = [removed.c[name] for name in counted], func.sum(removed.c.delta)
    sums = select(*whose, number.cast(BigInteger), true()).group_by(*whose).having(number != 0)
    return insert(count).from_select([*counted, "delta", "is_folded"], sums)
