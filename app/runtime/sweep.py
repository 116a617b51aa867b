"""Runs the processes of jobs and deployments, one supervisor for each row.

Rings start supervisors. They may be lost, so the sweep rings again for every row that waits for one; and it ends
those whose supervisor has gone silent.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from app.dispatch import Message, deployment_message, job_message
from app.lifecycle import JOB_TERMINAL, WorkspaceState
from app.models import Deployment, Job, Workspace
from app.runtime.deployments import claim as deployment_claim
from app.runtime.deployments import supervisor as deployments
from app.runtime.jobs import supervisor as jobs

_MESSAGES_PER_SWEEP = 200
"""Rings of one kind in one sweep: a long outage must not fill the queue at once; the next sweep rings the rest."""

_LONGEST_REQUEUE_INTERVAL = timedelta(hours=1)


def mark_lost(session: Session, *, now: datetime) -> int:
    """End the jobs and deployments whose supervisors have gone silent; how many. Their hosts stay on record."""
    return jobs.mark_lost(session, now=now) + deployments.mark_lost(session, now=now)


def unsupervised(session: Session, *, now: datetime, requeue_interval: timedelta) -> list[Message]:
    """Rings for the rows that wait for a supervisor, the longest untouched first; noted, so that it is not too often.

    In a workspace that is being deleted only for what has to stop: the cascade waits for that. A row is rung for
    once it was quiet for so long, and again when it has waited half as long once more, at least hourly: all
    runtime workers may be busy for days, and the queue keeps every ring.
    """
    in_use = Workspace.state == WorkspaceState.ACTIVE
    waiting_jobs = or_(
        Job.status.in_(jobs.CONFIRMED),
        and_(in_use, Job.status.in_(jobs.TAKEN_UP)),
        and_(in_use, Job.status.in_(JOB_TERMINAL), Job.delete_requested_at.is_not(None)),
    )
    waiting_deployments = or_(
        Deployment.status.in_(deployment_claim.CONFIRMED),
        and_(in_use, Deployment.status.in_(deployment_claim.TAKEN_UP)),
    )
    return [
        *_messages(session, Job, job_message, waiting_jobs, now=now, requeue_interval=requeue_interval),
        *_messages(
            session,
            Deployment,
            deployment_message,
            waiting_deployments,
            now=now,
            requeue_interval=requeue_interval,
        ),
    ]


def _messages(
    session: Session,
    model: type[Any],
    message: Callable[..., Message],
    is_waiting: ColumnElement[bool],
    *,
    now: datetime,
    requeue_interval: timedelta,
) -> list[Message]:
    query = (
        select(model)
        .join(Workspace, Workspace.id == model.workspace_id)
        .where(
            model.lease_owner.is_(None),
            or_(model.host.is_not(None), is_waiting),
            # While nobody supervises the row, its lease is that of the ring: until then it may be on its way.
            func.coalesce(model.lease_until, model.updated_at + requeue_interval) < now,
        )
        .order_by(model.updated_at)
        .limit(_MESSAGES_PER_SWEEP)
        .with_for_update(of=model, skip_locked=True)  # two sweeps share the work
        .execution_options(populate_existing=True)
    )
    rows = session.scalars(query).all()
    for row in rows:
        row.lease_until = now + min(
            _LONGEST_REQUEUE_INTERVAL, max(requeue_interval, (now - row.updated_at) / 2)
        )
    return [message(row.id, row.workspace_id, row.name, row.host) for row in rows]
