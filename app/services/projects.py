"""Projects, and the references to them in other rows, which are names."""

from collections.abc import Mapping
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import clock
from app.access.authorize import Actor
from app.db import insert_unique
from app.errors import NameTaken, NotFound, Unprocessable
from app.models import Deployment, DeploymentConfig, Entity, Fileset, Job, Project, Workspace
from app.services.workspaces import writable_workspace


def find_project(
    session: Session, workspace: Workspace, name: str, *, lock: Literal["change", "delete"] | None = None
) -> Project:
    """The project of that name, locked until the transaction ends to change or delete it. Raises NotFound."""
    query = select(Project).where(Project.workspace_id == workspace.id, Project.name == name)
    if lock:
        # A change leaves the key alone, and so does not wait for those that refer to it.
        query = query.with_for_update(key_share=lock == "change")
    project = session.scalars(query).one_or_none()
    if project is None:
        raise NotFound(f"Project '{name}' not found in workspace '{workspace.name}'")
    return project


def require_project(session: Session, workspace: Workspace, name: str) -> None:
    """Lock the project against deletion until the transaction ends.

    Raises Unprocessable if it does not exist, because the body of a request refers to it.
    """
    # KEY SHARE: a deletion waits and then also clears our reference; an update does not wait.
    query = (
        select(Project.id)
        .where(Project.workspace_id == workspace.id, Project.name == name)
        .with_for_update(read=True, key_share=True)
    )
    if session.scalar(query) is None:
        raise Unprocessable(
            f"Project '{name}' does not exist in workspace '{workspace.name}'. Please create the project first."
        )


def delete_project(session: Session, actor: Actor, workspace: str, name: str) -> None:
    """Delete a project and clear the references to it; the rows that referred to it stay. Raises NotFound."""
    workspace_row = writable_workspace(session, actor, workspace)
    session.delete(find_project(session, workspace_row, name, lock="delete"))
    session.flush()  # waits for transactions that lock the project, before the references are searched
    for clearing in (
        update(Entity).values(project=None, db_version=Entity.db_version + 1),
        update(Job).values(project=None),
        update(Deployment).values(project=None),
        update(DeploymentConfig).values(project=None),
        update(Fileset).values(project=""),
    ):
        columns = clearing.table.c
        session.execute(clearing.where(columns.workspace_id == workspace_row.id, columns.project == name))


def create_project(
    session: Session, actor: Actor, workspace: str, name: str, *, description: str | None
) -> Project:
    """Create a project. Raises NameTaken."""
    workspace_row = writable_workspace(session, actor, workspace)
    project = Project(
        workspace_id=workspace_row.id,
        name=name,
        description=description,
        created_by=actor.id,
        updated_by=actor.id,
    )
    taken = NameTaken(f"Project '{name}' already exists in workspace '{workspace}'.")
    insert_unique(session, project, taken=taken)
    return project


def update_project(
    session: Session, actor: Actor, workspace: str, name: str, changes: Mapping[str, str | None]
) -> Project:
    """Set the columns that `changes` names. Raises NotFound."""
    project = find_project(session, writable_workspace(session, actor, workspace), name, lock="change")
    for column, value in changes.items():
        setattr(project, column, value)
    if session.is_modified(project):
        project.updated_at, project.updated_by = clock.now(), actor.id
    return project
