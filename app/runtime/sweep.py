"""The part of the ten-second sweep that looks after jobs and deployments.

Messages start supervisors and may be lost. So the sweep sends another one for every row that waits for a supervisor,
and marks the rows whose supervisors no longer renew their lease as lost.
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
"""Limit for jobs and for deployments each: a long outage must not fill the queue at once; the next sweep goes on."""

_LONGEST_REQUEUE_INTERVAL = timedelta(hours=1)


def mark_lost(session: Session, *, now: datetime) -> int:
    """Mark the jobs and deployments whose leases have lapsed as lost; how many. Their hosts stay on record."""
    return jobs.mark_lost(session, now=now) + deployments.mark_lost(session, now=now)


def unsupervised(session: Session, *, now: datetime, requeue_interval: timedelta) -> list[Message]:
    """Messages for the rows that wait for a supervisor, the longest untouched first. Records when the next is due.

    Rows of a workspace that is being deleted get one only if they have to stop: the cascade waits for that. The first
    message is due `requeue_interval` after the last change of the row. Each later one is due when the row has waited
    half as long again, at most an hour: all runtime workers may be busy for days, and the queue keeps every message.
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
            # Without a supervisor, `lease_until` is when the last message counts as lost; until then it may be queued.
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
