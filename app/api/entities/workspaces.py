"""Workspaces over HTTP. Deleting one has a file of its own."""

from uuid import UUID

from sqlalchemy import select

from app.access.authorize import permitted
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest, NameTaken, NotFound
from app.filters.fields import Fields
from app.http.field_types import Description, Name, Shown
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.lifecycle import WorkspaceState
from app.models import Workspace
from app.services import workspaces

routes = Routes("workspaces")
BASE = "/apis/entities/v2/workspaces"
ONE = f"{BASE}/<workspace>"

FIELDS = Fields(
    key=Workspace.id,
    columns={
        "id": Workspace.id,
        "name": Workspace.name,
        "description": Workspace.description,
        "created_at": Workspace.created_at,
        "created_by": Workspace.created_by,
        "updated_at": Workspace.updated_at,
        "updated_by": Workspace.updated_by,
    },
)


class NewWorkspace(Body):
    """What to make."""

    name: Name
    description: Description | None = None


class WorkspaceChanges(Body):
    """What to change: null clears the description, leaving it out keeps it."""

    description: Description | None = None


class WorkspaceShown(Shown):
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
    returns=WorkspaceShown,
    raises=(NameTaken,),
)
def create_workspace(call: RequestContext, body: NewWorkspace) -> WorkspaceShown:
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
    return WorkspaceShown.model_validate(made)


@routes.add(
    "GET",
    BASE,
    permission=Permission.WORKSPACES_READ,
    returns=Page[WorkspaceShown],
    raises=(BadRequest,),
)
def list_workspaces(call: RequestContext, query: ListQuery) -> Page[WorkspaceShown]:
    """List the workspaces that you may read.

    Without those that are being deleted.
    """
    statement = select(Workspace).where(
        Workspace.state == WorkspaceState.ACTIVE,
        permitted(call.actor),
    )
    return list_page(call, query, statement, FIELDS, item=WorkspaceShown.model_validate, alias="search")


@routes.add("GET", ONE, permission=Permission.WORKSPACES_READ, returns=WorkspaceShown, raises=(NotFound,))
def get_workspace(call: RequestContext, workspace: str) -> WorkspaceShown:
    """Get a workspace."""
    return WorkspaceShown.model_validate(workspaces.readable_workspace(call.session, call.actor, workspace))


@routes.add("PUT", ONE, permission=Permission.WORKSPACES_UPDATE, returns=WorkspaceShown, raises=(NotFound,))
def update_workspace(call: RequestContext, workspace: str, body: WorkspaceChanges) -> WorkspaceShown:
    """Update a workspace.

    `null` clears the description; leaving the key out changes nothing.
    """
    if "description" not in body.model_fields_set:
        return WorkspaceShown.model_validate(
            workspaces.readable_workspace(call.session, call.actor, workspace)
        )
    changed = workspaces.update_workspace(call.session, call.actor, workspace, description=body.description)
    return WorkspaceShown.model_validate(changed)
