"""Workspaces over HTTP; their deletion is in `workspace_deletion`."""

from uuid import UUID

from flask import Response

from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest, NameTaken, NotFound
from app.filters.fields import Fields
from app.http.field_types import Description, Name, Resource
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.http.transfers.row_stream import resources
from app.services import workspaces
from app.services.listing import workspaces_of

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
    """A workspace to create."""

    name: Name
    description: Description | None = None


class WorkspaceUpdate(Body):
    """A change of a workspace. `null` clears the description; a missing key keeps it."""

    description: Description | None = None


class Workspace(Resource):
    """A workspace. The two built-in ones have no creator."""

    id: UUID
    name: str
    description: str | None
    created_at: Timestamp
    created_by: str | None
    updated_at: Timestamp
    updated_by: str | None


ITEMS = resources(Workspace, rows.Workspace)


@routes.add(
    "POST",
    BASE,
    permission=Permission.WORKSPACES_CREATE,
    ignored=("wait_role_propagation",),
    status=201,
    returns=Workspace,
    raises=(NameTaken,),
)
def create_workspace(call: RequestContext, body: WorkspaceCreate) -> Workspace:
    """Create a workspace.

    Its creator becomes its Admin. The name of a workspace that is being deleted is free; the new workspace
    shares nothing with the old one.
    """
    created = workspaces.create_workspace(
        call.session,
        call.actor,
        body.name,
        description=body.description,
        with_admin=call.context.settings.auth_enabled,
    )
    return Workspace.from_row(created)


@routes.add(
    "GET",
    BASE,
    permission=Permission.WORKSPACES_READ,
    returns=Page[Workspace],
    raises=(BadRequest,),
)
def list_workspaces(call: RequestContext, query: ListQuery) -> Response:
    """List the workspaces that you may read.

    Workspaces that are being deleted are left out.
    """
    return list_page(call, query, workspaces_of(call.actor), FIELDS, items=ITEMS)


@routes.add("GET", ONE, permission=Permission.WORKSPACES_READ, returns=Workspace, raises=(NotFound,))
def get_workspace(call: RequestContext, workspace: str) -> Workspace:
    """Get a workspace."""
    return Workspace.from_row(workspaces.readable_workspace(call.session, call.actor, workspace))


@routes.add("PUT", ONE, permission=Permission.WORKSPACES_UPDATE, returns=Workspace, raises=(NotFound,))
def update_workspace(call: RequestContext, workspace: str, body: WorkspaceUpdate) -> Workspace:
    """Update a workspace.

    `null` clears the description; a missing key keeps it.
    """
    if "description" not in body.model_fields_set:
        return Workspace.from_row(workspaces.readable_workspace(call.session, call.actor, workspace))
    changed = workspaces.update_workspace(call.session, call.actor, workspace, description=body.description)
    return Workspace.from_row(changed)
