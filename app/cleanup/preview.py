"""What a DELETE would destroy."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.cleanup import remaining
from app.lifecycle import DeploymentStatus, JobStatus
from app.models import BUILT_IN, Deployment, Job
from app.services.workspaces import readable_workspace


@dataclass(frozen=True)
class Preview:
    """What a DELETE would destroy now, but for the bytes in the store."""

    workspace_id: UUID
    remaining: dict[str, int]
    running_jobs: int
    running_deployments: int
    protected: bool


def preview(session: Session, actor: Actor, name: str) -> Preview:
    """What a workspace holds by the kept counts, without touching it."""
    workspace = readable_workspace(session, actor, name)
    return Preview(
        workspace_id=workspace.id,
        remaining=remaining.count_by_kind(session, [workspace.id])[workspace.id],
        running_jobs=_count_in(session, Job, workspace.id, JobStatus.ACTIVE),
        running_deployments=_count_in(session, Deployment, workspace.id, DeploymentStatus.READY),
        protected=workspace.is_protected or name in BUILT_IN,
    )


def _count_in(
    session: Session, model: type[Job | Deployment], workspace_id: UUID, status: JobStatus | DeploymentStatus
) -> int:
    query = select(func.count()).where(model.workspace_id == workspace_id, model.status == status)
    return session.scalar(query) or 0
