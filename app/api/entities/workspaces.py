"""Workspaces over HTTP. Deleting one has a file of its own."""

from uuid import UUID

from sqlalchemy import select

from app import models as rows
from app.access.authorize import permitted
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest, NameTaken, NotFound
from app.filters.fields import Fields
from app.http.field_types import Description, Name, Resource
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.lifecycle import WorkspaceState
from app.services import workspaces

routes = Routes("workspaces")
BASE = "/apis/entities/v2/workspaces"
ONE = f"{BASE}/<workspace>"

FIELDS = Fields(
    key=rows.Workspace.id,
    columns={
        "id": rows.Workspace.id,
        "name": rows.Workspace.name,
        "description": rows.Workspace.description,
        "created_at": rows.Workspace.created_at,
        "created_by": rows.Workspace.created_by,
        "updated_at": rows.Workspace.updated_at,
        "updated_by": rows.Workspace.updated_by,
    },
)


class WorkspaceCreate(Body):
    """What to make."""

    name: Name
    description: Description | None = None


class WorkspaceUpdate(Body):
    """What to change: null clears the description, leaving it out keeps it."""

    description: Description | None = None


class Workspace(Resource):
    """A workspace; the two built-in ones were made by nobody."""

    id: UUID
    name: str
    description: str | None
    created_at: Timestamp
    created_by: str | None
    updated_at: Timestamp
    updated_by: str | None


@routes.add(
    "POST",
    BASE,
    permission=Permission.WORKSPACES_CREATE,
    status=201,
    returns=Workspace,
    raises=(NameTaken,),
)
def create_workspace(call: RequestContext, body: WorkspaceCreate) -> Workspace:
    """Create a workspace.

    Whoever creates it becomes its Admin. The name of a workspace that is being deleted is free: the new one
    shares nothing with it.
    """
    made = workspaces.create_workspace(
        call.session,
        call.actor,
        body.name,
        description=body.description,
        with_admin=call.context.settings.auth_enabled,
    )
    return Workspace.model_validate(made)


@routes.add(
    "GET",
    BASE,
    permission=Permission.WORKSPACES_READ,
    returns=Page[Workspace],
    raises=(BadRequest,),
)
def list_workspaces(call: RequestContext, query: ListQuery) -> Page[Workspace]:
    """List the workspaces that you may read.

    Without those that are being deleted.
    """
    statement = select(rows.Workspace).where(
        rows.Workspace.state == WorkspaceState.ACTIVE,
        permitted(call.actor),
    )
    return list_page(call, query, statement, FIELDS, item=Workspace.model_validate, alias="search")


@routes.add("GET", ONE, permission=Permission.WORKSPACES_READ, returns=Workspace, raises=(NotFound,))
def get_workspace(call: RequestContext, workspace: str) -> Workspace:
    """Get a workspace."""
    return Workspace.model_validate(workspaces.readable_workspace(call.session, call.actor, workspace))


@routes.add("PUT", ONE, permission=Permission.WORKSPACES_UPDATE, returns=Workspace, raises=(NotFound,))
def update_workspace(call: RequestContext, workspace: str, body: WorkspaceUpdate) -> Workspace:
    """Update a workspace.

    `null` clears the description; leaving the key out changes nothing.
    """
    if "description" not in body.model_fields_set:
        return Workspace.model_validate(workspaces.readable_workspace(call.session, call.actor, workspace))
    changed = workspaces.update_workspace(call.session, call.actor, workspace, description=body.description)
    return Workspace.model_validate(changed)
