"""Projects of a workspace over HTTP."""

from uuid import UUID

from flask import Response

from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest, NameTaken, NotFound
from app.filters.fields import Fields
from app.http.field_types import Deleted, Description, Name, Resource
from app.http.paging import ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.http.transfers.row_stream import resources
from app.services import projects
from app.services.listing import rows_in
from app.services.workspaces import readable_workspace

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
        # The published name of the description, from the time when projects were documents.
        "data.description": rows.Project.description,
        "created_at": rows.Project.created_at,
        "created_by": rows.Project.created_by,
        "updated_at": rows.Project.updated_at,
        "updated_by": rows.Project.updated_by,
    },
)


class ProjectCreate(Body):
    """A project to create."""

    name: Name
    description: Description | None = None


class ProjectUpdate(Body):
    """A change of a project. `null` clears the description; a missing key keeps it."""

    description: Description | None = None


class Project(Resource):
    """A project: a light grouping of the resources of a workspace."""

    id: UUID
    name: str
    workspace: str
    description: str | None
    created_at: Timestamp
    created_by: str
    updated_at: Timestamp
    updated_by: str


_IS_KEPT = rows.Project.delete_requested_at.is_(None)
ITEMS = resources(Project, rows.Project, workspace=rows.Workspace.name)


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
    project = projects.create_project(
        call.session, call.actor, workspace, body.name, description=body.description
    )
    return Project.from_row(project, workspace)


@routes.add(
    "GET",
    BASE,
    permission=Permission.PROJECTS_READ,
    returns=Page[Project],
    raises=(BadRequest, NotFound),
)
def list_projects(call: RequestContext, workspace: str, query: ListQuery) -> Response:
    """List projects.

    Workspace `-` means all workspaces.
    """
    found = rows_in(call.session, call.actor, workspace, rows.Project)
    return list_page(call, query, found.where(_IS_KEPT), FIELDS, items=ITEMS)


@routes.add("GET", ONE, permission=Permission.PROJECTS_READ, returns=Project, raises=(NotFound,))
def get_project(call: RequestContext, workspace: str, name: str) -> Project:
    """Get a project."""
    workspace_row = readable_workspace(call.session, call.actor, workspace)
    return Project.from_row(projects.find_project(call.session, workspace_row, name), workspace)


@routes.add("PUT", ONE, permission=Permission.PROJECTS_WRITE, returns=Project, raises=(NotFound,))
def update_project(call: RequestContext, workspace: str, name: str, body: ProjectUpdate) -> Project:
    """Update a project.

    `null` clears the description; a missing key keeps it.
    """
    project = projects.update_project(
        call.session, call.actor, workspace, name, body.model_dump(exclude_unset=True)
    )
    return Project.from_row(project, workspace)


@routes.add(
    "DELETE",
    ONE,
    permission=Permission.PROJECTS_WRITE,
    returns=Deleted,
    raises=(NotFound,),
    transaction=False,
)
def delete_project(call: RequestContext, workspace: str, name: str) -> Deleted:
    """Delete a project.

    Its resources stay in the workspace and belong to no project afterwards. Where there are more than some ten
    thousand of them, the last ones show it for a while after the answer; until then the name cannot be used again.
    """
    projects.delete_project(call.context, call.actor, workspace, name)
    return Deleted(message="Project deleted successfully", id=f"{workspace}/{name}")
