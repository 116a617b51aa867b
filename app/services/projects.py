"""Projects: what else knows them by name, and must not be left pointing at nothing."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.errors import NotFound, Unprocessable
from app.models import Deployment, DeploymentConfig, Entity, Fileset, Job, Project, Workspace
from app.services.workspaces import writable_workspace


def find_project(session: Session, home: Workspace, name: str) -> Project:
    """The project of that name. Raises NotFound."""
    query = select(Project).where(Project.workspace_id == home.id, Project.name == name)
    project = session.scalars(query).one_or_none()
    if project is None:
        raise NotFound(f"Project '{name}' not found in workspace '{home.name}'")
    return project


def require_project(session: Session, home: Workspace, name: str) -> None:
    """Make sure that the project exists, and goes on existing until the transaction ends.

    Raises Unprocessable, because a body refers to it.
    """
    # KEY SHARE: a delete waits for us and then clears our reference too, but an update need not wait.
    query = (
        select(Project.id)
        .where(Project.workspace_id == home.id, Project.name == name)
        .with_for_update(read=True, key_share=True)
    )
    if session.scalar(query) is None:
        raise Unprocessable(
            f"Project '{name}' does not exist in workspace '{home.name}'. Please create the project first."
        )


def delete_project(session: Session, actor: Actor, workspace: str, name: str) -> None:
    """Delete a project, and clear the reference of everything in the workspace that was part of it.

    What was part of it stays. Raises NotFound.
    """
    home = writable_workspace(session, actor, workspace)
    session.delete(find_project(session, home, name))
    session.flush()  # waits for those who hold the project, before we look for what refers to it
    for clearing in (
        update(Entity).values(project=None, db_version=Entity.db_version + 1),
        update(Job).values(project=None),
        update(Deployment).values(project=None),
        update(DeploymentConfig).values(project=None),
        update(Fileset).values(project=""),
    ):
        columns = clearing.table.c
        session.execute(clearing.where(columns.workspace_id == home.id, columns.project == name))
