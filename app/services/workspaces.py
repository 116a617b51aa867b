"""Workspaces: making them, and the one gate through which everything below them is reached."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from app import clock
from app.access.audit import record
from app.access.authorize import Actor, access_error, permitted
from app.access.principal import EVERYBODY
from app.access.roles import PLATFORM, Role
from app.db import insert_unique
from app.errors import NameTaken
from app.lifecycle import WorkspaceMove, WorkspaceState
from app.models import BUILT_IN, CleanupControl, RoleBinding, Workspace
from app.models.audit import AuditEvent
from app.models.role_binding import binding_name

OPEN_TO_EVERYBODY = (
    ("default", Role.EDITOR),
    (PLATFORM, Role.VIEWER),
    (PLATFORM, Role.WORKSPACE_CREATOR),
)
"""What every authenticated caller may do from the first start, in which built-in workspace."""


def readable_workspace(session: Session, actor: Actor, name: str) -> Workspace:
    """The ACTIVE workspace of that name, in which `actor` holds its permission.

    Raises Forbidden if there is none, or NotFound to those who may see every workspace; also while it is being
    deleted.
    """
    return _only(session, actor, name, _permitted(actor, name))


def writable_workspace(session: Session, actor: Actor, name: str) -> Workspace:
    """The ACTIVE workspace of that name, held so until the transaction ends.

    Every insert or change below a workspace goes through here. Raises as `readable_workspace` does.
    """
    # FOR SHARE, not the key share lock of the foreign key: that one lets a DELETE change the state under our
    # open transaction, and our row would be left in a workspace nobody can see.
    return _only(session, actor, name, _permitted(actor, name).with_for_update(read=True))


def changeable_workspace(session: Session, actor: Actor, name: str) -> Workspace:
    """The ACTIVE workspace of that name, for a change of its own row.

    Raises as `readable_workspace` does.
    """
    # Not FOR SHARE: two that share the row and then both want to change it would wait for each other.
    return _only(session, actor, name, _permitted(actor, name).with_for_update(key_share=True))


def _permitted(actor: Actor, name: str) -> Select[Workspace]:
    # State, role and row in one statement: no DELETE, revoke or successor can come between them.
    return select(Workspace).where(
        Workspace.name == name, Workspace.state == WorkspaceState.ACTIVE, permitted(actor)
    )


def _only(session: Session, actor: Actor, name: str, query: Select[Workspace]) -> Workspace:
    workspace = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if workspace is None:
        raise access_error(session, actor, f"Workspace '{name}' not found", workspace=name)
    return workspace


def create_workspace(
    session: Session, actor: Actor, name: str, *, description: str | None, with_admin: bool
) -> Workspace:
    """Make an ACTIVE workspace; `with_admin` makes the actor its Admin.

    Raises NameTaken while another ACTIVE one has the name; one that is being deleted does not hold it.
    """
    workspace = Workspace(name=name, description=description, created_by=actor.id, updated_by=actor.id)
    insert_unique(session, workspace, taken=NameTaken(f"Workspace '{name}' already exists"))
    record(session, actor, AuditEvent.WORKSPACE_CREATED, workspace=(workspace.id, name))
    if with_admin:
        admin = actor.principal.email or actor.id
        _bind(session, workspace.id, admin, Role.ADMIN, granted_by=actor.id)
        record(
            session,
            actor,
            AuditEvent.MEMBER_GRANTED,
            workspace=(workspace.id, name),
            subject=admin,
            role=Role.ADMIN,
        )
    return workspace


def update_workspace(session: Session, actor: Actor, name: str, *, description: str | None) -> Workspace:
    """Set the description of a workspace, or clear it with None."""
    workspace = changeable_workspace(session, actor, name)
    if workspace.description != description:
        workspace.description = description
        workspace.updated_at = clock.now()
        workspace.updated_by = actor.id
        record(session, actor, AuditEvent.WORKSPACE_UPDATED, workspace=(workspace.id, name))
    return workspace


def move_workspace(
    session: Session, move: WorkspaceMove, *which: ColumnElement[bool], **values: Any
) -> Workspace | None:
    """Change the state of the workspace that `which` describes, and `values` with it: the only writer of its state.

    The row as it is now, or as it was if the move removes it; None if there is none in a state the move leads from.
    """
    guard = Workspace.state.in_(move.value.before), *which
    after = move.value.after
    change = (
        update(Workspace).where(*guard).values(state=after, **values)
        if after
        else delete(Workspace).where(*guard)
    )
    return session.scalars(
        change.returning(Workspace), execution_options={"populate_existing": True}
    ).one_or_none()


def installation(session: Session) -> UUID:
    """What tells this installation from every other: the id of its workspace `system`, which nobody can delete."""
    ours = select(Workspace.id).where(Workspace.name == "system", Workspace.state == WorkspaceState.ACTIVE)
    return session.scalars(ours).one()


def seed(session: Session) -> list[str]:
    """Make sure that the built-in workspaces exist, with their first members; names of those that had to be made.

    What an operator has revoked since does not come back.
    """
    session.execute(upsert(CleanupControl).values(id=1, paused=False).on_conflict_do_nothing())
    made = []
    for name, description in BUILT_IN.items():
        added = session.scalar(
            upsert(Workspace)
            .values(name=name, description=description)
            .on_conflict_do_nothing(
                # Literal, as in the index: a bound value would not match it once the plan is generic.
                index_elements=["name"],
                index_where=text("state = 'ACTIVE'"),
            )
            .returning(Workspace.id)
        )
        made += [name] if added else []
    for workspace, role in OPEN_TO_EVERYBODY:
        home = select(Workspace.id).where(
            Workspace.name == workspace, Workspace.state == WorkspaceState.ACTIVE
        )
        _bind(session, session.scalars(home).one(), EVERYBODY, role, granted_by="system")
    return made


def _bind(session: Session, workspace_id: UUID, principal: str, role: Role, *, granted_by: str) -> None:
    """Grant a role for the first time. One that was revoked stays so, because its row stays."""
    session.execute(
        upsert(RoleBinding)
        .values(
            workspace_id=workspace_id,
            name=binding_name(workspace_id, principal, role),
            principal=principal,
            role=role,
            granted_by=granted_by,
        )
        .on_conflict_do_nothing(index_elements=["workspace_id", "principal", "role"])
    )


def lock_active_workspace(session: Session, workspace_id: UUID) -> bool:
    """Whether that workspace is ACTIVE; if it is, it is held so until the transaction ends.

    Taken before the lock of any row below the workspace, in the order in which requests take them.
    """
    query = select(Workspace.id).where(Workspace.id == workspace_id, Workspace.state == WorkspaceState.ACTIVE)
    # FOR SHARE, as writable_workspace takes it: a DELETE of the workspace must not come between look and write.
    return session.scalar(query.with_for_update(read=True)) is not None
