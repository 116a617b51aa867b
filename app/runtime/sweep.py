"""Runs the processes of jobs and deployments, one supervisor for each row.

Rings start supervisors. They may be lost, so the sweep rings again for every row that waits for one; and it ends
those whose supervisor has gone silent.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from app.dispatch import Message, deployment_ring, job_ring
from app.lifecycle import JOB_TERMINAL, WorkspaceState
from app.models import Deployment, Job, Workspace
from app.runtime.deployments import claim as deployment_claim
from app.runtime.deployments import supervisor as deployments
from app.runtime.jobs import supervisor as jobs

_RINGS_LIMIT = 200
"""Rings of one kind in one sweep: a long outage must not fill the queue at once; the next sweep rings the rest."""

_LONGEST_QUIET = timedelta(hours=1)


def mark_lost(session: Session, *, now: datetime) -> int:
    """End the jobs and deployments whose supervisors have gone silent; how many. Their hosts stay on record."""
    return jobs.mark_lost(session, now=now) + deployments.mark_lost(session, now=now)


def unsupervised(session: Session, *, now: datetime, quiet: timedelta) -> list[Message]:
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
        *_rings(session, Job, job_ring, waiting_jobs, now=now, quiet=quiet),
        *_rings(session, Deployment, deployment_ring, waiting_deployments, now=now, quiet=quiet),
    ]


def _rings(
    session: Session,
    model: type[Any],
    ring: Callable[..., Message],
    is_waiting: ColumnElement[bool],
    *,
    now: datetime,
    quiet: timedelta,
) -> list[Message]:
    query = (
        select(model)
        .join(Workspace, Workspace.id == model.workspace_id)
        .where(
            model.runner.is_(None),
            or_(model.host.is_not(None), is_waiting),
            # While nobody supervises the row, its lease is that of the ring: until then it may be on its way.
            func.coalesce(model.lease_until, model.updated_at + quiet) < now,
        )
        .order_by(model.updated_at)
        .limit(_RINGS_LIMIT)
        .with_for_update(of=model, skip_locked=True)  # two sweeps share the work
        .execution_options(populate_existing=True)
    )
    rows = session.scalars(query).all()
    for row in rows:
        row.lease_until = now + min(_LONGEST_QUIET, max(quiet, (now - row.updated_at) / 2))
    return [ring(row.id, row.workspace_id, row.name, row.host) for row in rows]
