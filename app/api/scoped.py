"""What a list under a workspace is a list of."""

from typing import TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.lifecycle import WorkspaceState
from app.models import Workspace
from app.models.columns import InWorkspace
from app.services.workspaces import readable_workspace

EVERYWHERE = "-"
"""Reserved: in the path of a list it stands for all workspaces. No workspace can have this name."""

M = TypeVar("M", bound=InWorkspace)


def rows_in(session: Session, workspace: str, model: type[M]) -> Select[M, str]:
    """The rows of one workspace, or of every ACTIVE one for `-`, each with the name of its workspace.

    Raises NotFound for a workspace that is not ACTIVE.
    """
    rows = (
        select(model, Workspace.name)
        .join(Workspace, Workspace.id == model.workspace_id)
        .where(Workspace.state == WorkspaceState.ACTIVE)
    )
    if workspace == EVERYWHERE:
        return rows
    return rows.where(Workspace.id == readable_workspace(session, workspace).id)
