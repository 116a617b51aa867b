"""The rows of a list: of one workspace, or of every workspace that the caller can read."""

from typing import TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.access.authorize import Actor, permitted
from app.lifecycle import WorkspaceState
from app.models import Workspace
from app.models.columns import InWorkspace
from app.services.workspaces import readable_workspace

EVERYWHERE = "-"
"""Reserved name: in the path of a list it means all workspaces."""

M = TypeVar("M", bound=InWorkspace)


def rows_in(session: Session, actor: Actor, workspace: str, model: type[M]) -> Select[M, str]:
    """A query of the rows in one workspace, or for `-` in every workspace where the actor has its permission.

    Each row comes with the name of its workspace. Raises as `readable_workspace` does.
    """
    rows = (
        select(model, Workspace.name)
        .join(Workspace, Workspace.id == model.workspace_id)
        .where(Workspace.state == WorkspaceState.ACTIVE, permitted(actor))
    )
    if workspace == EVERYWHERE:
        return rows
    return rows.where(Workspace.id == readable_workspace(session, actor, workspace).id)
