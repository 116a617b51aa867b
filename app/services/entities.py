"""Generic entities: typed, versioned documents in trees."""

import time
from contextlib import nullcontext, suppress
from functools import cache
from typing import Any
from uuid import UUID

from psycopg.errors import ForeignKeyViolation
from sqlalchemy import Select, bindparam, delete, exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from app import clock
from app.access.authorize import Access, Actor, access_error, permitted
from app.context import Context
from app.db import insert_unique, transact, unique_or
from app.errors import Busy, Conflict, NameTaken, NotFound, Unprocessable
from app.models import Entity, Workspace
from app.models.workspace import is_active
from app.services.names import generated_name
from app.services.projects import require_project
from app.services.workspaces import readable_workspace, writable_workspace

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
    workspace_row = writable_workspace(session, actor, workspace)
    if project is not None:
        require_project(session, workspace_row, project)
    if parent is not None:
        _require_parent(session, workspace_row, parent)
    values = {
        "workspace_id": workspace_row.id,
        "entity_type": entity_type,
        "parent_id": parent,
        "project": project,
        "data": data,
        "created_by": actor.id,
        "updated_by": actor.id,
    }
    if name is not None:
        return _insert(session, Entity(name=name, **values), workspace)
    return _insert_under_free_name(session, values, workspace)


def _insert(session: Session, entity: Entity, workspace: str) -> Entity:
    taken = NameTaken(
        f"Entity '{entity.name}' of type '{entity.entity_type}' already exists in workspace '{workspace}'."
    )
    return insert_unique(session, entity, taken=taken)


def _insert_under_free_name(session: Session, values: dict[str, Any], workspace: str) -> Entity:
    for _ in range(ATTEMPTS - 1):
        with suppress(NameTaken):
            return _insert(session, Entity(name=_free_name(values), **values), workspace)
    return _insert(session, Entity(name=_free_name(values), **values), workspace)


def _free_name(values: dict[str, Any]) -> str:
    return generated_name(values["entity_type"], fallback="entity", random_characters=5)


def find_entity(
    session: Session, actor: Actor, workspace: str, entity_type: str, name: str, *, parent: UUID | None
) -> Entity:
    """The entity of that type and name below that parent; without `parent`, the one at the root. Raises NotFound."""
    workspace_row = readable_workspace(session, actor, workspace)
    query, names = _named(workspace_row, entity_type, name, parent)
    entity = session.scalars(query, names).one_or_none()
    if entity is None:
        raise NotFound("Entity not found")
    return entity


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
    workspace_row = writable_workspace(session, actor, workspace)
    if project is not None:
        require_project(session, workspace_row, project)
    entity = _lock_entity(
        session, workspace_row, entity_type, name, parent=parent, expected_db_version=expected_db_version
    )
    taken = NameTaken("A conflicting entity already exists.")
    with unique_or(session, taken) if new_name not in {None, name} else nullcontext():
        entity.name = new_name or entity.name
        entity.project = project or entity.project
        entity.data = data
        entity.db_version += 1
        entity.updated_at = clock.now()
        entity.updated_by = actor.id
    return entity


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
                # One statement: the foreign key to the parent is checked after all rows are deleted.
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
    query, names = _named(workspace, entity_type, name, parent, is_locked=True)
    entity = session.scalars(query, names).one_or_none()
    if entity is None:
        raise NotFound(f"Entity '{name}' of type '{entity_type}' not found in workspace '{workspace.name}'")
    if expected_db_version not in (None, entity.db_version):
        raise Conflict(
            f"Entity '{name}' of type '{entity_type}' in workspace '{workspace.name}' was modified by another "
            f"request. Expected version {expected_db_version}, but current version is {entity.db_version}. "
            "Please refetch and retry."
        )
    return entity


def _named(
    workspace: Workspace, entity_type: str, name: str, parent: UUID | None, *, is_locked: bool = False
) -> tuple[Select[Entity], dict[str, Any]]:
    """The query of the entity with that name, and its parameters."""
    names = {"workspace_id": workspace.id, "entity_type": entity_type, "name": name, "parent": parent}
    return _naming(is_root=parent is None, is_locked=is_locked), names


@cache
def _naming(*, is_root: bool, is_locked: bool) -> Select[Entity]:
    query = select(Entity).where(
        Entity.workspace_id == bindparam("workspace_id"),
        Entity.entity_type == bindparam("entity_type"),
        Entity.name == bindparam("name"),
        # Not one comparison for both: no index serves IS NOT DISTINCT FROM.
        Entity.parent_id.is_(None) if is_root else Entity.parent_id == bindparam("parent"),
    )
    locking = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return locking if is_locked else query


def _require_parent(session: Session, workspace: Workspace, parent: UUID) -> None:
    # The lock of the foreign key, taken early: the parent found here remains until our child has been inserted.
    query = (
        select(Entity.id)
        .where(Entity.workspace_id == workspace.id, Entity.id == parent)
        .with_for_update(read=True, key_share=True)
    )
    if session.scalar(query) is None:
        raise Unprocessable(f"Parent entity '{parent}' not found or not in accessible workspaces")
