"""Generic entities over HTTP."""

import re
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Self
from uuid import UUID

from flask import Response
from pydantic import BeforeValidator, Field, JsonValue
from sqlalchemy import Select, Text, and_, func
from sqlalchemy.orm import Session, aliased

from app import models as rows
from app.access.authorize import access_error
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest, Busy, Conflict, NameTaken, NotFound, TooManyRequests, Unprocessable
from app.filters.ast import EQUALITY, RANGES, Operator
from app.filters.fields import Children, Fields
from app.http.field_types import Deleted, Name, Resource, ShortText
from app.http.paging import ListQuery, Page, filtered, list_page, naming_what_is_slow, requested_filter
from app.http.route import Body, Query, RequestContext, Routes
from app.http.transfers.row_stream import resources
from app.services import entities
from app.services.listing import entities_in

routes = Routes("entities")
BASE = "/apis/entities/v2/workspaces/<workspace>/entities/<entity_type>"
ONE = f"{BASE}/<name>"
BY_ID = "/apis/entities/v2/entities/<entity_id>"

MAX_GROUPS = 1000
"""Groups of one answer. A field with more values than this is not worth counting by."""


def _columns(entity: Any) -> dict[str, Any]:
    return {
        "entity_type": entity.entity_type,
        "name": entity.name,
        "parent": entity.parent_id,
        "project": entity.project,
        "created_at": entity.created_at,
        "created_by": entity.created_by,
        "updated_at": entity.updated_at,
        "updated_by": entity.updated_by,
        "db_version": entity.db_version,
    }


FIELDS = Fields(
    key=rows.Entity.id,
    columns={"id": rows.Entity.id, "workspace": rows.Workspace.name, **_columns(rows.Entity)},
    data=rows.Entity.data,
    indexed={
        "name": RANGES | {Operator.LIKE},
        "created_at": RANGES,
        "updated_at": RANGES,
        "id": EQUALITY,
        "parent": EQUALITY,
        "project": EQUALITY,
        "data": EQUALITY,
    },
)

_ADAPTER = aliased(rows.Entity)
FIELDS_OF_MODELS = replace(
    FIELDS,
    children={
        "adapters": Children(
            _ADAPTER,
            Fields(key=_ADAPTER.id, columns={"id": _ADAPTER.id, **_columns(_ADAPTER)}, data=_ADAPTER.data),
            and_(
                _ADAPTER.workspace_id == rows.Entity.workspace_id,
                _ADAPTER.entity_type == "adapter",
                _ADAPTER.parent_id == rows.Entity.id,
            ),
        )
    },
)
"""Entities of the type `model` are found by their adapters, too, which are entities below them."""

Document = dict[str, JsonValue]
EntityType = Annotated[str, Field(max_length=255, description="Any text; its case is kept.")]


class EntityCreate(Body):
    """An entity to create. Its default name is made from its type."""

    data: Document
    name: Name | None = None
    parent: UUID | None = Field(None, description="Id of an entity of the same workspace.")
    project: ShortText | None = Field(None, description="Name of a project of the same workspace.")


class EntityUpdate(Body):
    """The complete new data. A missing or null `new_name` or `project` keeps the old one."""

    data: Document
    new_name: Name | None = None
    project: ShortText | None = None
    expected_db_version: int | None = Field(
        None, description="The answer is 409 unless this is the current version."
    )


class Entity(Resource):
    """An entity. `db_version` grows by one with each change."""

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

    @classmethod
    def from_row(cls, row: rows.Entity, workspace_name: str | None = None, **values: Any) -> Self:
        """As `Resource.from_row`; the column behind `parent` is `parent_id`."""
        return super().from_row(row, workspace_name, parent=row.parent_id, **values)


ITEMS = resources(Entity, rows.Entity, workspace=rows.Workspace.name, parent=rows.Entity.parent_id)


class EntityPage(Page[Entity]):
    """One page of entities, and counts over all pages if `count_by` was given."""

    group_counts: dict[str, int] | None


class EntityListQuery(ListQuery):
    """Every field can sort and filter, including `data.<path>`."""

    count_by: str | None = Field(
        None, description="`data.<field>`: count the entities by the text values of this field."
    )


def _as_id(given: str) -> UUID:
    """The id, or one that no entity has: what is no id of ours is not there, however it is written."""
    try:
        return UUID(given)
    except ValueError:
        return UUID(int=0)


class EntityQuery(Query):
    """The parent of an entity; none for a root."""

    parent: Annotated[UUID, BeforeValidator(_as_id)] | None = Field(
        None, description="Id of the parent of a child."
    )


class EntityVersionQuery(EntityQuery):
    """The parent of an entity, and its expected version."""

    expected_db_version: int | None = Field(
        None, description="The answer is 409 unless this is the current version."
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
    created = entities.create_entity(
        call.session,
        call.actor,
        workspace,
        entity_type,
        name=body.name,
        parent=body.parent,
        project=body.project,
        data=body.data,
    )
    return Entity.from_row(created, workspace)


@routes.add(
    "GET",
    BASE,
    permission=Permission.ENTITIES_READ,
    returns=EntityPage,
    raises=(BadRequest, NotFound, TooManyRequests, Busy),
    searches=True,
)
def list_entities(call: RequestContext, workspace: str, entity_type: str, query: EntityListQuery) -> Response:
    """List entities of a type.

    Children are included. Workspace `-` means all workspaces. `count_by` adds `group_counts`:
    the number of listed entities per value, for the 1000 most frequent values. Those of the type `model` can be
    filtered by the entities of the type `adapter` below them: `filter[adapters][$exists]=true`, or one of which a field
    has a value, `filter[adapters][name]=a` or `filter[adapters][data.<path>]=v`.
    """
    fields = FIELDS_OF_MODELS if entity_type == "model" else FIELDS
    found = entities_in(call.session, call.actor, workspace, entity_type)
    counts = None
    if query.count_by:
        asked = requested_filter()
        matching = filtered(found.rows, fields, asked).params(found.parameters)
        with naming_what_is_slow(fields, asked, sort=query.sort, count_by=query.count_by):
            counts = _group_counts(call.session, matching, query.count_by)
    return list_page(
        call,
        query,
        found,
        fields,
        items=ITEMS,
        envelope=partial(EntityPage, group_counts=counts),
    )


@routes.add("GET", ONE, permission=Permission.ENTITIES_READ, returns=Entity, raises=(NotFound,))
def get_entity(
    call: RequestContext, workspace: str, entity_type: str, name: str, query: EntityQuery
) -> Entity:
    """Get an entity.

    The root of that name, or with `parent` the child of that parent.
    """
    found = entities.find_entity(call.session, call.actor, workspace, entity_type, name, parent=query.parent)
    return Entity.from_row(found, workspace)


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
    return Entity.from_row(changed, workspace)


@routes.add(
    "DELETE",
    ONE,
    permission=Permission.ENTITIES_WRITE,
    returns=Deleted,
    raises=(NotFound, Conflict),
    transaction=False,
)
def delete_entity(
    call: RequestContext, workspace: str, entity_type: str, name: str, query: EntityVersionQuery
) -> Deleted:
    """Delete an entity.

    Its descendants are deleted with it. More than a thousand of them go bit by bit before it does: the answer is 503 if
    that takes too long, and the same request then deletes the rest.
    """
    entities.delete_entity(
        call.context,
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

    Its id is unique across workspaces.
    """
    try:
        key = UUID(entity_id)
    except ValueError:
        raise access_error(call.session, call.actor, "Entity not found") from None
    return Entity.from_row(*entities.find_entity_by_id(call.session, call.actor, key))


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
