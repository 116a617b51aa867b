"""The gate to a workspace for workers, which know it by its id."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.lifecycle import WorkspaceState
from app.models import Workspace


def hold_if_active(session: Session, workspace_id: UUID) -> bool:
    """Whether that workspace is ACTIVE; if it is, it is held so until the transaction ends.

    Taken before the lock of any row below the workspace, in the order in which requests take them.
    """
    query = select(Workspace.id).where(Workspace.id == workspace_id, Workspace.state == WorkspaceState.ACTIVE)
    # FOR SHARE, as writable_workspace takes it: a DELETE of the workspace must not come between look and write.
    return session.scalar(query.with_for_update(read=True)) is not None
