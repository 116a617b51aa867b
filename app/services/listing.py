"""The rows of a list: of one workspace, or of every workspace that the caller can read."""

from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.access.authorize import Actor, Question, always, permitted
from app.models import Workspace
from app.models.columns import InWorkspace
from app.models.workspace import is_active
from app.services.workspaces import is_readable, readable_workspace

EVERYWHERE = "-"
"""Reserved name: in the path of a list it means all workspaces."""

M = TypeVar("M", bound=InWorkspace)


@dataclass(frozen=True)
class Listed(Generic[M]):
    """Rows that a caller may read, each with the name of its workspace."""

    rows: Select[M, str]
    may_read: Question
    """Asks whether the caller may still read them; of many workspaces, each row's own one decides."""


def rows_in(session: Session, actor: Actor, workspace: str, model: type[M]) -> Listed[M]:
    """The rows in one workspace, or for `-` in every workspace where the actor has its permission.

    Raises as `readable_workspace` does.
    """
    rows = (
        select(model, Workspace.name)
        .join(Workspace, Workspace.id == model.workspace_id)
        .where(is_active(), permitted(actor.access))
        .params(actor.parameters)
    )
    if workspace == EVERYWHERE:
        return Listed(rows, always)
    workspace_id = readable_workspace(session, actor, workspace).id
    return Listed(rows.where(Workspace.id == workspace_id), partial(is_readable, actor, workspace_id))
