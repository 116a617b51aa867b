"""Carries out what was asked of jobs and deployments, one row at a time.

This is the seam behind which their processes will be supervised. This release has no executor, so nothing is
ever started: new work waits, and a request to stop is confirmed at once, because there is nothing to stop.
"""

from datetime import datetime

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from app.dispatch import Message, deployment_ring, job_ring
from app.lifecycle import JOB_TERMINAL, WorkspaceState
from app.models import Deployment, Job, Workspace
from app.runtime import deployments, jobs

_RINGS_LIMIT = 200
"""Rings of one kind in one sweep: a long outage must not fill the queue at once; the next sweep rings the rest."""


def unfinished(session: Session, older_than: datetime) -> list[Message]:
    """Rings for the rows that wait for the runtime untouched since `older_than`, the longest waiting first.

    In a workspace that is being deleted only stops are rung for: the cascade waits for those.
    """
    return [*_unfinished_jobs(session, older_than), *_unfinished_deployments(session, older_than)]


def _unfinished_jobs(session: Session, older_than: datetime) -> list[Message]:
    query = (
        select(Job.id, Job.workspace_id, Job.name)
        .join(Workspace, Workspace.id == Job.workspace_id)
        .where(
            or_(
                Job.status.in_([*jobs.CONFIRMED, *jobs.TAKEN_UP]),
                and_(Job.delete_requested_at.is_not(None), Job.status.in_(JOB_TERMINAL)),
            ),
            or_(Workspace.state == WorkspaceState.ACTIVE, Job.status.in_(jobs.CONFIRMED)),
            Job.updated_at < older_than,
        )
        .order_by(Job.updated_at)
        .limit(_RINGS_LIMIT)
    )
    return [job_ring(*row) for row in session.execute(query)]


def _unfinished_deployments(session: Session, older_than: datetime) -> list[Message]:
    query = (
        select(Deployment.id, Deployment.workspace_id, Deployment.name)
        .join(Workspace, Workspace.id == Deployment.workspace_id)
        .where(
            Deployment.status.in_([*deployments.CONFIRMED, *deployments.TAKEN_UP]),
            or_(
                Workspace.state == WorkspaceState.ACTIVE,
                Deployment.status.in_(deployments.CONFIRMED),
            ),
            Deployment.updated_at < older_than,
        )
        .order_by(Deployment.updated_at)
        .limit(_RINGS_LIMIT)
    )
    return [deployment_ring(*row) for row in session.execute(query)]
