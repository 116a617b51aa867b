"""The rows of a list, of one workspace or of every workspace that the caller can read, and how many entities there are.

The database keeps the number of entities: counting a million takes longer than reading a page of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    Uuid,
    cast,
    delete,
    func,
    insert,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import Session

from app.access.authorize import Actor, Question, always, permitted
from app.models import Entity, EntityCount, Workspace
from app.models.columns import InWorkspace
from app.models.workspace import is_active
from app.services.workspaces import is_readable, readable_workspace

EVERYWHERE = "-"
"""Reserved name: in the path of a list it means all workspaces."""

_FOLDED_AT_ONCE = 10_000

M = TypeVar("M", bound=InWorkspace)


@dataclass(frozen=True)
class Listed(Generic[M]):
    """Rows that a caller may read, each with the name of its workspace."""

    rows: Select[M, str]
    conditions: tuple[ColumnElement[bool], ...]
    """Those on `Workspace` under which the caller may read them, with the parameters of `actor`."""
    actor: Actor
    may_read: Question
    """Asks whether the caller may still read them; of many workspaces, each row's own one decides."""


def rows_in(session: Session, actor: Actor, workspace: str, model: type[M]) -> Listed[M]:
    """The rows in one workspace, or for `-` in every workspace where the actor has its permission.

    Raises as `readable_workspace` does.
    """
    rows = select(model, Workspace.name).join(Workspace, Workspace.id == model.workspace_id)
    conditions: tuple[ColumnElement[bool], ...] = (is_active(), permitted(actor.access, in_many=workspace == EVERYWHERE))
    if workspace == EVERYWHERE:
        return Listed(rows.where(*conditions).params(actor.parameters), conditions, actor, always)
    workspace_id = readable_workspace(session, actor, workspace).id
    conditions += (Workspace.id == workspace_id,)
    found = rows.where(*conditions).params(actor.parameters)
    return Listed(found, conditions, actor, partial(is_readable, actor, workspace_id))


def kept_total(session: Session, found: Listed[Entity], entity_type: str) -> int:
    """The number of entities of a type in the workspaces of a list, under the conditions of access of that list."""
    query = (
        select(func.coalesce(func.sum(EntityCount.delta), 0))
        .join(Workspace, Workspace.id == EntityCount.workspace_id)
        .where(*found.conditions, EntityCount.entity_type == entity_type)
        .params(found.actor.parameters)
    )
    return int(session.scalar(query) or 0)


def kept_totals(session: Session, workspace_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The number of entities of all types in each of the workspaces that has any."""
    number = func.sum(EntityCount.delta)
    query = select(EntityCount.workspace_id, number).where(
        EntityCount.workspace_id == func.any(cast(workspace_ids, ARRAY(Uuid)))
    )
    counted = session.execute(query.group_by(EntityCount.workspace_id).having(number > 0))
    return {workspace_id: int(total) for workspace_id, total in counted}


def fold_counts(session: Session) -> None:
    """Replace the changes of each type in each workspace by their sum, or by nothing if that is zero.

    Takes up to `_FOLDED_AT_ONCE` of those that came since the last time. Any number of processes may do so at once:
    each adds up what it has itself deleted.
    """
    count = EntityCount
    new = (
        select(count.id, count.workspace_id, count.entity_type)
        .where(~count.is_folded)
        .order_by(count.id)
        .limit(_FOLDED_AT_ONCE)
        .with_for_update(skip_locked=True)
        .cte("new")
    )
    earlier = select(count.id).where(
        count.is_folded, count.workspace_id == new.c.workspace_id, count.entity_type == new.c.entity_type
    )
    removed = (
        delete(count)
        .where(count.id.in_(union_all(select(new.c.id), earlier)))
        .returning(count.workspace_id, count.entity_type, count.delta)
        .cte("removed")
    )
    whose, number = (removed.c.workspace_id, removed.c.entity_type), func.sum(removed.c.delta)
    sums = select(*whose, number.cast(BigInteger), true()).group_by(*whose).having(number != 0)
    session.execute(insert(count).from_select(["workspace_id", "entity_type", "delta", "is_folded"], sums))
