"""Projects of a workspace over HTTP."""

from uuid import UUID

from pydantic import BaseModel

from app import clock
from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp
from app.db import insert_unique
from app.errors import BadRequest, NameTaken, NotFound
from app.filters.fields import Fields
from app.http.field_types import Deleted, Description, Name
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.services import projects
from app.services.listing import rows_in
from app.services.workspaces import readable_workspace, writable_workspace

routes = Routes("projects")
BASE = "/apis/entities/v2/workspaces/<workspace>/projects"
ONE = f"{BASE}/<name>"

FIELDS = Fields(
    key=rows.Project.id,
    columns={
        "id": rows.Project.id,
        "workspace": rows.Workspace.name,
        "name": rows.Project.name,
        "description": rows.Project.description,
        # The published name of the description, from when projects were documents.
        "data.description": rows.Project.description,
        "created_at": rows.Project.created_at,
        "created_by": rows.Project.created_by,
        "updated_at": rows.Project.updated_at,
        "updated_by": rows.Project.updated_by,
    },
)


class ProjectCreate(Body):
    """What to make."""

    name: Name
    description: Description | None = None


class ProjectUpdate(Body):
    """What to change: null clears the description, leaving it out keeps it."""

    description: Description | None = None


class Project(BaseModel):
    """A project: a light grouping of what is in a workspace."""

    id: UUID
    name: str
    workspace: str
    description: str | None
    created_at: Timestamp
    created_by: str
    updated_at: Timestamp
    updated_by: str


@routes.add(
    "POST",
    BASE,
    permission=Permission.PROJECTS_WRITE,
    status=201,
    returns=Project,
    raises=(NotFound, NameTaken),
)
def create_project(call: RequestContext, workspace: str, body: ProjectCreate) -> Project:
    """Create a project."""
    home = writable_workspace(call.session, call.actor, workspace)
    project = rows.Project(
        workspace_id=home.id,
        name=body.name,
        description=body.description,
        created_by=call.actor.id,
        updated_by=call.actor.id,
    )
    taken = NameTaken(f"Project '{body.name}' already exists in workspace '{workspace}'.")
    insert_unique(call.session, project, taken=taken)
    return _shown(project, workspace)


@routes.add(
    "GET",
    BASE,
    permission=Permission.PROJECTS_READ,
    returns=Page[Project],
    raises=(BadRequest, NotFound),
)
def list_projects(call: RequestContext, workspace: str, query: ListQuery) -> Page[Project]:
    """List projects.

    Workspace `-` means all workspaces.
    """
    statement = rows_in(call.session, call.actor, workspace, rows.Project)
    return list_page(call, query, statement, FIELDS, item=_shown, alias="search")


@routes.add("GET", ONE, permission=Permission.PROJECTS_READ, returns=Project, raises=(NotFound,))
def get_project(call: RequestContext, workspace: str, name: str) -> Project:
    """Get a project."""
    home = readable_workspace(call.session, call.actor, workspace)
    return _shown(projects.find_project(call.session, home, name), workspace)


@routes.add("PUT", ONE, permission=Permission.PROJECTS_WRITE, returns=Project, raises=(NotFound,))
def update_project(call: RequestContext, workspace: str, name: str, body: ProjectUpdate) -> Project:
    """Update a project.

    `null` clears the description; leaving the key out changes nothing.
    """
    home = writable_workspace(call.session, call.actor, workspace)
    project = projects.find_project(call.session, home, name)
    if "description" in body.model_fields_set and body.description != project.description:
        project.description = body.description
        project.updated_at = clock.now()
        project.updated_by = call.actor.id
    return _shown(project, workspace)


@routes.add("DELETE", ONE, permission=Permission.PROJECTS_WRITE, returns=Deleted, raises=(NotFound,))
def delete_project(call: RequestContext, workspace: str, name: str) -> Deleted:
    """Delete a project.

    What was part of it stays in the workspace, as part of no project.
    """
    projects.delete_project(call.session, call.actor, workspace, name)
    return Deleted(message="Project deleted successfully", id=f"{workspace}/{name}")


def _shown(project: rows.Project, workspace: str) -> Project:
    return Project(
        id=project.id,
        name=project.name,
        workspace=workspace,
        description=project.description,
        created_at=project.created_at,
        created_by=project.created_by,
        updated_at=project.updated_at,
        updated_by=project.updated_by,
    )
