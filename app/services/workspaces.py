"""Workspaces: making them, and the one gate through which everything below them is reached."""

from sqlalchemy import Select, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from app import clock
from app.access.authenticate import Principal
from app.db import insert_unique
from app.errors import NameTaken, NotFound
from app.lifecycle import WorkspaceState
from app.models import BUILT_IN, CleanupControl, Workspace


def readable_workspace(session: Session, name: str) -> Workspace:
    """The ACTIVE workspace of that name.

    Raises NotFound for any other, also while it is being deleted.
    """
    return _only(session, name, _active(name))


def writable_workspace(session: Session, name: str) -> Workspace:
    """The ACTIVE workspace of that name, held so until the transaction ends.

    Every insert or change below a workspace goes through here. Raises NotFound as `readable_workspace` does.
    """
    # FOR SHARE, not the key share lock of the foreign key: that one lets a DELETE change the state under our
    # open transaction, and our row would be left in a workspace nobody can see.
    return _only(session, name, _active(name).with_for_update(read=True))


def changeable_workspace(session: Session, name: str) -> Workspace:
    """The ACTIVE workspace of that name, for a change of its own row.

    Raises NotFound as `readable_workspace` does.
    """
    # Not FOR SHARE: two that share the row and then both want to change it would wait for each other.
    return _only(session, name, _active(name).with_for_update(key_share=True))


def _active(name: str) -> Select[Workspace]:
    return select(Workspace).where(Workspace.name == name, Workspace.state == WorkspaceState.ACTIVE)


def _only(session: Session, name: str, query: Select[Workspace]) -> Workspace:
    workspace = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if workspace is None:
        raise NotFound(f"Workspace '{name}' not found")
    return workspace


def create_workspace(session: Session, actor: Principal, name: str, *, description: str | None) -> Workspace:
    """Make an ACTIVE workspace.

    Raises NameTaken while another ACTIVE one has the name; one that is being deleted does not hold it.
    """
    workspace = Workspace(name=name, description=description, created_by=actor.id, updated_by=actor.id)
    insert_unique(session, workspace, taken=NameTaken(f"Workspace '{name}' already exists"))
    return workspace


def update_workspace(session: Session, actor: Principal, name: str, *, description: str | None) -> Workspace:
    """Set the description of a workspace, or clear it with None."""
    workspace = changeable_workspace(session, name)
    if workspace.description != description:
        workspace.description = description
        workspace.updated_at = clock.now()
        workspace.updated_by = actor.id
    return workspace


def seed(session: Session) -> list[str]:
    """Make sure that the built-in workspaces exist; names of those that had to be made."""
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
    return made
