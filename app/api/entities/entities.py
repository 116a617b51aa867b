"""Generic entities over HTTP."""

import re
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, JsonValue
from sqlalchemy import Select, Text, func, true
from sqlalchemy.orm import Session

from app import models as rows
from app.access.authorize import access_error
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest, Conflict, NameTaken, NotFound, Unprocessable
from app.filters.fields import Fields
from app.filters.sort import parse_sort
from app.http.field_types import Deleted, Name, ShortText
from app.http.paging import ListQuery, Page, paginate, requested_filter
from app.http.route import Body, Query, RequestContext, Routes
from app.services import entities
from app.services.listing import rows_in

routes = Routes("entities")
BASE = "/apis/entities/v2/workspaces/<workspace>/entities/<entity_type>"
ONE = f"{BASE}/<name>"
BY_ID = "/apis/entities/v2/entities/<entity_id>"

MAX_GROUPS = 1000
"""Groups of one answer; who counts by a field with more values than this wants another field."""

FIELDS = Fields(
    key=rows.Entity.id,
    columns={
        "id": rows.Entity.id,
        "workspace": rows.Workspace.name,
        "entity_type": rows.Entity.entity_type,
        "name": rows.Entity.name,
        "parent": rows.Entity.parent_id,
        "project": rows.Entity.project,
        "created_at": rows.Entity.created_at,
        "created_by": rows.Entity.created_by,
        "updated_at": rows.Entity.updated_at,
        "updated_by": rows.Entity.updated_by,
        "db_version": rows.Entity.db_version,
    },
    data=rows.Entity.data,
)

Document = dict[str, JsonValue]
EntityType = Annotated[str, Field(max_length=255, description="Any text; its case is kept.")]


class EntityCreate(Body):
    """What to make; without a name it gets one made from its type."""

    data: Document
    name: Name | None = None
    parent: UUID | None = Field(None, description="Id of an entity of the same workspace.")
    project: ShortText | None = Field(None, description="Name of a project of the same workspace.")


class EntityUpdate(Body):
    """The new contents, whole. Leaving out name or project, or giving null, keeps them."""

    data: Document
    new_name: Name | None = None
    project: ShortText | None = None
    expected_db_version: int | None = Field(
        None, description="Refuse with 409 unless this is the present version."
    )


class Entity(BaseModel):
    """An entity; `db_version` grows by one with each change."""

    id: UUID
    entity_type: str
    workspace: str
    parent: UUID | None
    project: str | None
    name: str
    data: dict[str, Any]
    created_at: Timestamp
    created_by: str
    updated_at: Timestamp
    updated_by: str
    db_version: int


class EntityPage(Page[Entity]):
    """One page of entities, and the counts over all pages where they were asked for."""

    group_counts: dict[str, int] | None


class EntityListQuery(ListQuery):
    """Any field can sort and filter, `data.<path>` too."""

    count_by: str | None = Field(
        None, description="`data.<field>`: count the entities by this field's values, where they are text."
    )


class EntityQuery(Query):
    """Roots are found by their name alone."""

    parent: UUID | None = Field(None, description="Id of the parent, to address a child.")


class EntityVersionQuery(EntityQuery):
    """Which entity, in which version."""

    expected_db_version: int | None = Field(
        None, description="Refuse with 409 unless this is the present version."
    )


@routes.add(
    "POST",
    BASE,
    permission=Permission.ENTITIES_WRITE,
    status=201,
    returns=Entity,
    raises=(NotFound, NameTaken, Unprocessable),
)
def create_entity(
    call: RequestContext, workspace: str, entity_type: EntityType, body: EntityCreate
) -> Entity:
    """Create an entity.

    Its name is unique among the entities of its type that have the same parent, or none.
    """
    made = entities.create_entity(
        call.session,
        call.actor,
        workspace,
        entity_type,
        name=body.name,
        parent=body.parent,
        project=body.project,
        data=body.data,
    )
    return _shown(made, workspace)


@routes.add(
    "GET", BASE, permission=Permission.ENTITIES_READ, returns=EntityPage, raises=(BadRequest, NotFound)
)
def list_entities(
    call: RequestContext, workspace: str, entity_type: str, query: EntityListQuery
) -> EntityPage:
    """List entities of a type.

    Children too. Workspace `-` means all workspaces. `count_by` adds `group_counts`:
    how many of all the entities listed have each value, at most the 1000 most frequent ones.
    """
    wanted = requested_filter(alias="search")
    matching = rows_in(call.session, call.actor, workspace, rows.Entity).where(
        rows.Entity.entity_type == entity_type, wanted.compile(FIELDS) if wanted else true()
    )
    page = paginate(
        call.session,
        matching.order_by(*parse_sort(query.sort, FIELDS, "-created_at")),
        page=query.page,
        page_size=query.page_size,
        sort=query.sort,
        filter=wanted,
        item=_shown,
    )
    counts = _group_counts(call.session, matching, query.count_by) if query.count_by else None
    return EntityPage(**dict(page), group_counts=counts)


@routes.add("GET", ONE, permission=Permission.ENTITIES_READ, returns=Entity, raises=(NotFound,))
def get_entity(
    call: RequestContext, workspace: str, entity_type: str, name: str, query: EntityQuery
) -> Entity:
    """Get an entity.

    A root, or with `parent` the child of that one.
    """
    found = entities.find_entity(call.session, call.actor, workspace, entity_type, name, parent=query.parent)
    return _shown(found, workspace)


@routes.add(
    "PUT",
    ONE,
    permission=Permission.ENTITIES_WRITE,
    returns=Entity,
    raises=(NotFound, Conflict, NameTaken, Unprocessable),
)
def update_entity(
    call: RequestContext,
    workspace: str,
    entity_type: str,
    name: str,
    *,
    body: EntityUpdate,
    query: EntityQuery,
) -> Entity:
    """Update an entity.

    Replaces its data. `expected_db_version` keeps two writers from overwriting each other.
    """
    changed = entities.update_entity(
        call.session,
        call.actor,
        workspace,
        entity_type,
        name,
        parent=query.parent,
        new_name=body.new_name,
        project=body.project,
        data=body.data,
        expected_db_version=body.expected_db_version,
    )
    return _shown(changed, workspace)


@routes.add("DELETE", ONE, permission=Permission.ENTITIES_WRITE, returns=Deleted, raises=(NotFound, Conflict))
def delete_entity(
    call: RequestContext, workspace: str, entity_type: str, name: str, query: EntityVersionQuery
) -> Deleted:
    """Delete an entity.

    With everything below it.
    """
    entities.delete_entity(
        call.session,
        call.actor,
        workspace,
        entity_type,
        name,
        parent=query.parent,
        expected_db_version=query.expected_db_version,
    )
    return Deleted(message="Resource deleted successfully.", id=f"{workspace}/{entity_type}/{name}")


@routes.add("GET", BY_ID, permission=Permission.ENTITIES_READ, returns=Entity, raises=(NotFound,))
def get_entity_by_id(call: RequestContext, entity_id: str) -> Entity:
    """Get an entity by its id.

    Whichever workspace it is in.
    """
    try:
        key = UUID(entity_id)
    except ValueError:
        raise access_error(call.session, call.actor, "Entity not found") from None
    return _shown(*entities.find_entity_by_id(call.session, call.actor, key))


def _group_counts(session: Session, matching: Select[rows.Entity, str], count_by: str) -> dict[str, int]:
    direct = re.fullmatch(r"data\.([^.]+)", count_by)
    if direct is None:
        raise BadRequest(f"Field '{count_by}' is not a direct string data field")
    field = direct[1]
    value = func.jsonb_extract_path_text(rows.Entity.data, field, type_=Text).label("value")
    groups = (
        matching.with_only_columns(value, func.count().label("entities"))
        .where(func.jsonb_typeof(func.jsonb_extract_path(rows.Entity.data, field)) == "string")
        .group_by(value)
        .order_by(func.count().desc(), value)
        .limit(MAX_GROUPS)
    )
    return dict(session.execute(groups).all())


def _shown(entity: rows.Entity, workspace: str) -> Entity:
    return Entity(
        id=entity.id,
        entity_type=entity.entity_type,
        workspace=workspace,
        parent=entity.parent_id,
        project=entity.project,
        name=entity.name,
        data=entity.data,
        created_at=entity.created_at,
        created_by=entity.created_by,
        updated_at=entity.updated_at,
        updated_by=entity.updated_by,
        db_version=entity.db_version,
    )
