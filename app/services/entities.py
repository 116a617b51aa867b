"""Generic entities: typed, versioned documents in trees."""

import time
from contextlib import nullcontext
from functools import cache
from typing import Any
from uuid import UUID

from psycopg.errors import ForeignKeyViolation
from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    Uuid,
    bindparam,
    delete,
    exists,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased
from uuid_utils.compat import uuid7

from app import clock
from app.access.authorize import Access, Actor, access_error, permitted
from app.clock import database_now
from app.context import Context
from app.db import transact, unique_or
from app.errors import Busy, Conflict, NameTaken, NotFound, Unprocessable
from app.models import Entity, Workspace
from app.models.workspace import is_active
from app.services.names import generated_name
from app.services.projects import require_project
from app.services.workspaces import (
    is_named,
    locked_workspace,
    queue_for_write,
    readable_workspace_id,
    writable,
    writable_workspace,
)

ATTEMPTS = 3
"""Attempts at an operation that a rare race can spoil: using a generated name, or deleting a growing subtree."""

CHUNK = 1000
"""Entities of a tree that are deleted in one transaction."""

DELETING_S = 30.0
"""How long one request deletes the entities of a tree; half of what the SDK waits for an answer."""


def create_entity(
    session: Session,
    actor: Actor,
    workspace: str,
    entity_type: str,
    *,
    name: str | None,
    parent: UUID | None,
    project: str | None,
    data: dict[str, Any],
) -> Entity:
    """Create version 1 of an entity; without a `name`, one is generated from its type.

    A name is unique among the entities of its type with the same parent, or with none.
    Raises NameTaken, and Unprocessable if parent or project are not in the workspace.
    """
    workspace_id = queue_for_write(session, actor, workspace)
    if project is not None or parent is not None:
        workspace_row = locked_workspace(session, actor, workspace, workspace_id)
        if project is not None:
            require_project(session, workspace_row, project)
        if parent is not None:
            _require_parent(session, workspace_row, parent)
    values = {
        **actor.parameters,
        "workspace": workspace,
        "found_id": workspace_id,
        "of_type": entity_type,
        "new_parent": parent,
        "new_project": project,
        "new_data": data,
    }
    for _ in range(1 if name else ATTEMPTS):
        new = {"new_id": uuid7(), "new_name": name or _free_name(entity_type)}
        created = session.scalars(_creation(actor.access), values | new).one_or_none()
        if created is not None:
            return created
    locked_workspace(session, actor, workspace, workspace_id)  # or why not
    raise NameTaken(
        f"Entity '{new['new_name']}' of type '{entity_type}' already exists in workspace '{workspace}'."
    )


def _free_name(entity_type: str) -> str:
    return generated_name(entity_type, fallback="entity", random_characters=5)


@cache
def _creation(access: Access) -> Select[Entity]:
    """Creates an entity in a workspace that it locks; no row if that is not there, or the name is taken."""
    workspace = writable(access)
    values: dict[str, Any] = {
        "id": bindparam("new_id", type_=Uuid),
        "workspace_id": workspace.c.id,
        "entity_type": bindparam("of_type", type_=Text),
        "name": bindparam("new_name", type_=Text),
        "parent_id": bindparam("new_parent", type_=Uuid),
        "project": bindparam("new_project", type_=Text),
        "data": bindparam("new_data", type_=JSONB),
        "db_version": literal(1),
        "created_at": database_now(),
        "created_by": bindparam("actor_id", type_=Text),
        "updated_at": database_now(),
        "updated_by": bindparam("actor_id", type_=Text),
    }
    created = (
        insert(Entity)
        .from_select(list(values), select(*values.values()), include_defaults=False)
        .on_conflict_do_nothing()
        .returning(Entity)
        .cte("created")
    )
    return select(aliased(Entity, created))


def find_entity(
    session: Session, actor: Actor, workspace: str, entity_type: str, name: str, *, parent: UUID | None
) -> Entity:
    """The entity of that type and name below that parent; without `parent`, the one at the root. Raises NotFound."""
    which = {"workspace": workspace, "of_type": entity_type, "named": name, "below": parent}
    entity = session.scalars(
        _reading(actor.access, is_root=parent is None), actor.parameters | which
    ).one_or_none()
    if entity is None:
        readable_workspace_id(session, actor, workspace)  # or why not
        raise NotFound("Entity not found")
    return entity


@cache
def _reading(access: Access, *, is_root: bool) -> Select[Entity]:
    query = select(Entity).join(Workspace, Workspace.id == Entity.workspace_id)
    return query.where(*is_named(access), *_has_name(is_root=is_root))


def find_entity_by_id(session: Session, actor: Actor, entity_id: UUID) -> tuple[Entity, str]:
    """The entity and the name of its workspace, which may be any ACTIVE one.

    Raises Forbidden, or NotFound for a PlatformAdmin.
    """
    found = session.execute(_with_id(actor.access), actor.parameters | {"id": entity_id}).one_or_none()
    if found is None:
        raise access_error(session, actor, "Entity not found")
    return found[0], found[1]


@cache
def _with_id(access: Access) -> Select[Entity, str]:
    return (
        select(Entity, Workspace.name)
        .join(Workspace, Workspace.id == Entity.workspace_id)
        .where(Entity.id == bindparam("id"), is_active(), permitted(access))
    )


def update_entity(
    session: Session,
    actor: Actor,
    workspace: str,
    entity_type: str,
    name: str,
    *,
    parent: UUID | None,
    new_name: str | None,
    project: str | None,
    data: dict[str, Any],
    expected_db_version: int | None,
) -> Entity:
    """Replace the data of an entity, and its name and project if given; its version grows by one.

    Raises NotFound, Conflict if `expected_db_version` is not the current version, NameTaken,
    and Unprocessable for a missing project.
    """
    workspace_id = queue_for_write(session, actor, workspace)
    if project is not None:
        workspace_row = locked_workspace(session, actor, workspace, workspace_id)
        require_project(session, workspace_row, project)
    renames = new_name not in {None, name}
    change = _change(actor.access, is_root=parent is None, renames=renames, moves=bool(project))
    values = {
        **actor.parameters,
        "workspace": workspace,
        "found_id": workspace_id,
        "of_type": entity_type,
        "named": name,
        "below": parent,
        "expected": expected_db_version,
        "new_name": new_name,
        "new_project": project,
        "new_data": data,
        "now": clock.now(),
    }
    taken = NameTaken("A conflicting entity already exists.")
    with unique_or(session, taken) if renames else nullcontext():
        changed = session.scalars(change, values).one_or_none()
        if changed is None:
            workspace_row = locked_workspace(session, actor, workspace, workspace_id)  # or why not
            _lock_entity(
                session,
                workspace_row,
                entity_type,
                name,
                parent=parent,
                expected_db_version=expected_db_version,
            )
            # It has come to be what it has to be.
            changed = session.scalars(change, values).one()
    return changed


@cache
def _change(access: Access, *, is_root: bool, renames: bool, moves: bool) -> Select[Entity]:
    """Changes an entity of the expected version in a workspace that it locks."""
    workspace, expected = writable(access), bindparam("expected", type_=Integer)
    # A column that is not named is not locked: those that refer to its key need not wait.
    new: dict[str, Any] = {
        **({"name": bindparam("new_name", type_=Text)} if renames else {}),
        **({"project": bindparam("new_project", type_=Text)} if moves else {}),
    }
    changed = (
        update(Entity)
        .where(
            Entity.workspace_id == workspace.c.id,
            *_has_name(is_root=is_root),
            or_(expected.is_(None), Entity.db_version == expected),
        )
        .values(
            data=bindparam("new_data", type_=JSONB),
            db_version=Entity.db_version + 1,
            updated_at=bindparam("now"),
            updated_by=bindparam("actor_id"),
            **new,
        )
        .returning(Entity)
        .cte("changed")
    )
    return select(aliased(Entity, changed)).execution_options(populate_existing=True)


def delete_entity(
    context: Context,
    actor: Actor,
    workspace: str,
    entity_type: str,
    name: str,
    *,
    parent: UUID | None,
    expected_db_version: int | None,
) -> None:
    """Delete an entity and all its descendants.

    Commits: a tree of up to `CHUNK` entities at once, a larger one chunk by chunk from the leaves up, the entity last.
    Raises NotFound, Conflict if `expected_db_version` is not the current version, and Busy if the tree is too large
    for `DELETING_S`, or grows meanwhile: then the same request goes on.
    """
    deadline = time.monotonic() + DELETING_S

    def delete_chunk(session: Session) -> list[list[UUID]]:
        workspace_row = writable_workspace(session, actor, workspace)
        root = _lock_entity(
            session, workspace_row, entity_type, name, parent=parent, expected_db_version=expected_db_version
        )
        return _delete_chunk(session, workspace_row, levels or [[root.id]])

    levels: list[list[UUID]] = []
    while levels := transact(context.sessions, delete_chunk):
        if time.monotonic() > deadline:
            raise Busy(
                f"More entities are below '{name}' than one request can delete; try again to delete the rest."
            )


def _delete_chunk(session: Session, workspace: Workspace, levels: list[list[UUID]]) -> list[list[UUID]]:
    """Delete the next entities of a tree, none before its children; returns where to go on, nothing at the end.

    `levels` leads down the tree, from its root to the entities that are deleted now with their descendants. Where the
    first `CHUNK` of those all have children, some of these children are the next level.
    """
    child = aliased(Entity)
    is_child = child.workspace_id == workspace.id, child.parent_id == Entity.id
    for _ in range(ATTEMPTS):
        page = session.scalars(_first_of_trees(workspace, levels[-1])).all()
        deletion = delete(Entity).where(Entity.id.in_(page))
        is_all = len(page) < CHUNK
        if not is_all:
            deletion = deletion.where(~exists().where(*is_child))
        try:
            with session.begin_nested():
                # One statement: that no child is left is checked after all rows are deleted.
                removed = deletion.returning(Entity.id)
                deleted = session.scalars(removed, execution_options={"synchronize_session": False}).all()
        except IntegrityError as error:
            # A child was added while the statement waited for its parent; the next statement sees it.
            if not isinstance(error.orig, ForeignKeyViolation):
                raise
        else:
            if is_all:
                return levels[:-1]
            if deleted:
                return levels
            below = select(child.id).where(child.workspace_id == workspace.id, child.parent_id.in_(page))
            return [*levels, list(session.scalars(below.where(child.id.not_in(page)).limit(CHUNK)))]
    raise Busy("Entities are being added below the one to be deleted; try again.")


def _first_of_trees(workspace: Workspace, roots: list[UUID]) -> Select[UUID]:
    """The ids of entities and their descendants, level by level, `CHUNK` of them at most."""
    tree = select(Entity.id).where(Entity.id.in_(roots)).cte("tree", recursive=True)
    child = aliased(Entity)
    below = select(child.id).join(tree, child.parent_id == tree.c.id)
    tree = tree.union_all(below.where(child.workspace_id == workspace.id))
    return select(tree.c.id).limit(CHUNK)  # PostgreSQL searches no further


def _lock_entity(
    session: Session,
    workspace: Workspace,
    entity_type: str,
    name: str,
    *,
    parent: UUID | None,
    expected_db_version: int | None,
) -> Entity:
    # Locked: two writers that expect the same version must not both find it.
    names = {"workspace_id": workspace.id, "of_type": entity_type, "named": name, "below": parent}
    entity = session.scalars(_locking(is_root=parent is None), names).one_or_none()
    if entity is None:
        raise NotFound(f"Entity '{name}' of type '{entity_type}' not found in workspace '{workspace.name}'")
    if expected_db_version not in (None, entity.db_version):
        raise Conflict(
            f"Entity '{name}' of type '{entity_type}' in workspace '{workspace.name}' was modified by another "
            f"request. Expected version {expected_db_version}, but current version is {entity.db_version}. "
            "Please refetch and retry."
        )
    return entity


@cache
def _locking(*, is_root: bool) -> Select[Entity]:
    query = select(Entity).where(
        Entity.workspace_id == bindparam("workspace_id"), *_has_name(is_root=is_root)
    )
    return query.with_for_update(key_share=True).execution_options(populate_existing=True)


def _has_name(*, is_root: bool) -> tuple[ColumnElement[bool], ...]:
    """A condition: the `Entity` has the name `named` below the parent `below` among those `of_type`."""
    return (
        Entity.entity_type == bindparam("of_type", type_=Text),
        Entity.name == bindparam("named", type_=Text),
        # Not one comparison for both: no index serves IS NOT DISTINCT FROM.
        Entity.parent_id.is_(None) if is_root else Entity.parent_id == bindparam("below", type_=Uuid),
    )


def _require_parent(session: Session, workspace: Workspace, parent: UUID) -> None:
    # The lock that the insert takes, taken early: the parent found here remains until our child has been inserted.
    query = (
        select(Entity.id)
        .where(Entity.workspace_id == workspace.id, Entity.id == parent)
        .with_for_update(read=True, key_share=True)
    )
    if session.scalar(query) is None:
        raise Unprocessable(f"Parent entity '{parent}' not found or not in accessible workspaces")
