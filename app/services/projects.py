"""Projects, and the references to them in other rows, which are names."""

import time
from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import clock
from app.access.authorize import Actor
from app.clock import database_now
from app.context import Context
from app.db import Sessions, insert_unique, session_scope, transact
from app.errors import NameTaken, NotFound, Unprocessable
from app.logs import explain, get_logger
from app.models import Deployment, DeploymentConfig, Entity, Fileset, Job, Project, Workspace
from app.models.workspace import is_active
from app.services.workspaces import lock_active_workspace, writable_workspace

log = get_logger(__name__)

NIL = UUID(int=0)


CHUNK = 1000
"""References that are cleared in one transaction."""

CLEARING_S = 10.0
"""How long a request clears references; the sweep goes on with the rest."""

_SWEPT_S = 5.0
"""How long one sweep does, for all projects together."""

_REFERENCES: tuple[tuple[type[Any], dict[str, Any]], ...] = (
    (Entity, {"project": None, "db_version": Entity.db_version + 1}),
    (Job, {"project": None}),
    (Deployment, {"project": None}),
    (DeploymentConfig, {"project": None}),
    (Fileset, {"project": ""}),
)
"""The tables whose rows name a project, and what a row without one has."""


def find_project(
    session: Session, workspace: Workspace, name: str, *, lock: Literal["change", "delete"] | None = None
) -> Project:
    """The project of that name, locked until the transaction ends to change or delete it. Raises NotFound."""
    query = select(Project).where(*_named(workspace, name))
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
    if not _lock_for_reference(session, workspace, name):
        raise Unprocessable(
            f"Project '{name}' does not exist in workspace '{workspace.name}'. Please create the project first."
        )


def inherited_project(session: Session, workspace: Workspace, name: str | None) -> str | None:
    """The project that a new version takes over from the last one; None if it is being deleted."""
    return name if name is not None and _lock_for_reference(session, workspace, name) else None


def _lock_for_reference(session: Session, workspace: Workspace, name: str) -> bool:
    # KEY SHARE: a deletion waits and then also clears our reference; an update does not wait.
    query = select(Project.id).where(*_named(workspace, name)).with_for_update(read=True, key_share=True)
    return session.scalar(query) is not None


def _named(workspace: Workspace, name: str) -> tuple[ColumnElement[bool], ...]:
    return Project.workspace_id == workspace.id, Project.name == name, Project.delete_requested_at.is_(None)


def delete_project(context: Context, actor: Actor, workspace: str, name: str) -> None:
    """Delete a project and clear the references to it; the rows that referred to it stay. Raises NotFound.

    Commits first that nobody finds the project any more, and then each chunk of references. What is left after
    `CLEARING_S`, or because the database fails, is the sweep's; until then the name is taken.
    """

    def revoke(session: Session) -> UUID:
        # Waits for the transactions that have just referred to the project, so that their rows are found below.
        project = find_project(session, writable_workspace(session, actor, workspace), name, lock="delete")
        project.delete_requested_at = database_now()
        return project.id

    project_id = transact(context.sessions, revoke)
    try:
        _clear_references(context.sessions, project_id, deadline=time.monotonic() + CLEARING_S)
    except SQLAlchemyError as error:
        log.warning("project.clearing_deferred", project=name, workspace=workspace, error=explain(error))


def finish_deletions(sessions: Sessions) -> int:
    """Clear references to the projects that are being deleted, for a few seconds; how many projects went.

    Commits each chunk. Raises SQLAlchemyError when it has tried them all, if it could not go on with one.
    """
    deadline, removed, failure = time.monotonic() + _SWEPT_S, 0, None
    with session_scope(sessions) as session:
        due = session.scalars(
            select(Project.id)
            .join(Workspace, Workspace.id == Project.workspace_id)
            .where(Project.delete_requested_at.is_not(None), is_active())
            .order_by(Project.delete_requested_at)
            .limit(CHUNK)
        ).all()
    for project_id in due:
        try:
            removed += _clear_references(sessions, project_id, deadline=deadline)
        except SQLAlchemyError as error:  # one project's rows may be locked: the others must not wait for it
            failure = error
    if failure:
        raise failure
    return removed


def _clear_references(sessions: Sessions, project_id: UUID, *, deadline: float) -> bool:
    """Clear the references to a project that is being deleted, and remove it; False if they are too many for now."""
    after: dict[type[Any], UUID] = {}
    while time.monotonic() < deadline:
        with session_scope(sessions) as session:
            project = session.get(Project, project_id)
            if project is None or not lock_active_workspace(session, project.workspace_id):
                return project is None  # the cascade removes it with its workspace
            if _clear_chunk(session, project, after) < CHUNK:
                session.execute(delete(Project).where(Project.id == project_id))
                return True
    return False


def _clear_chunk(session: Session, project: Project, after: dict[type[Any], UUID]) -> int:
    """Clear the next references, the oldest rows first; how many. `after` has the last row of each table so far.

    Without it each chunk would search through the entries that the chunks before it have left in the index.
    """
    cleared = 0
    for model, without in _REFERENCES:
        # A subquery in place of the CTE might be run once per row, and find other rows each time: those it has
        # locked and changed are not found again.
        page = (
            select(model.id)
            .where(
                model.workspace_id == project.workspace_id,
                model.project == project.name,
                model.id > after.get(model, NIL),
            )
            .order_by(model.id)
            .limit(CHUNK - cleared)
            .with_for_update(key_share=True)
            .cte("page")
        )
        ids = session.scalars(
            update(model).where(model.id == page.c.id).values(without).returning(model.id),
            execution_options={"synchronize_session": False},
        ).all()
        after[model] = max(ids, default=after.get(model, NIL))
        cleared += len(ids)
    return cleared


def create_project(
    session: Session, actor: Actor, workspace: str, name: str, *, description: str | None
) -> Project:
    """Create a project. Raises NameTaken, also while rows refer to a deleted project of that name."""
    workspace_row = writable_workspace(session, actor, workspace)
    project = Project(
        workspace_id=workspace_row.id,
        name=name,
        description=description,
        created_by=actor.id,
        updated_by=actor.id,
    )
    taken = NameTaken(f"Project '{name}' already exists in workspace '{workspace}'.")
    try:
        return insert_unique(session, project, taken=taken)
    except NameTaken:
        same_name = Project.workspace_id == workspace_row.id, Project.name == name
        if session.scalar(select(exists().where(*same_name, Project.delete_requested_at.is_not(None)))):
            raise NameTaken(
                f"Project '{name}' of workspace '{workspace}' was deleted, and its references are still being "
                "cleared. Please try again in a minute."
            ) from None
        raise


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
