"""The part of the ten-second sweep that looks after jobs and deployments.

Messages start supervisors and may be lost. So the sweep sends another one for every row that waits for a supervisor,
and marks the rows whose supervisors no longer renew their lease as lost.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Float, and_, exists, extract, false, func, or_, select, update
from sqlalchemy.orm import Session

from app.clock import database_now, seconds_from_now, seconds_since
from app.dispatch import Message, deployment_message, job_message
from app.health.heartbeat import lost_hosts
from app.lifecycle import JOB_TERMINAL
from app.models import Deployment, Job, Workspace
from app.models.workspace import is_active
from app.runtime.deployments import claim as deployment_claim
from app.runtime.jobs import supervisor as jobs

MESSAGES_PER_SWEEP = 200
"""Limit for jobs and for deployments each: a long outage must not fill the queue at once; the next sweep goes on."""

_LONGEST_REQUEUE_S = 3600.0


def unsupervised_jobs(session: Session, *, requeue_s: float, is_queue_empty: bool = False) -> list[Message]:
    """Messages for the jobs that a host has to look after, the longest untouched first. Records when the next is due.

    Those that wait for a job slot have messages of their own, see `app.runtime.jobs.turns`. Rows of a workspace that is
    being deleted get one only if they have to stop: the cascade waits for that. Rows on a host of which nothing was
    heard for an hour get none: its queue would keep all of them. The first message is due `requeue_s` seconds after
    the last change of the row. Each later one is due when the row has waited half as long again, at most an hour: all
    runtime workers may be busy for days, and the queue keeps every message. If the queue of all workers
    `is_queue_empty`, the messages in it are lost, and each is due after `requeue_s` again.
    """
    stopping = Job.status.in_(jobs.CONFIRMED)
    is_doomed = Job.delete_requested_at.is_not(None)
    waits = or_(stopping, and_(in_use(Job), is_doomed, Job.status.in_(JOB_TERMINAL)))
    return _messages(
        session,
        Job,
        job_message,
        waits,
        or_(stopping, is_doomed),
        requeue_s=requeue_s,
        is_queue_empty=is_queue_empty,
    )


def unsupervised_deployments(
    session: Session, *, requeue_s: float, is_queue_empty: bool = False
) -> list[Message]:
    """Messages for the deployments that wait for a supervisor, as `unsupervised_jobs`."""
    stopping = Deployment.status.in_(deployment_claim.CONFIRMED)
    starting = Deployment.status.in_(deployment_claim.TAKEN_UP)
    waits = or_(stopping, and_(in_use(Deployment), starting))
    return _messages(
        session,
        Deployment,
        deployment_message,
        waits,
        or_(stopping, starting),
        requeue_s=requeue_s,
        is_queue_empty=is_queue_empty,
    )


def in_use(model: type[Any]) -> ColumnElement[bool]:
    """Whether the workspace of a row is not being deleted, as a condition of a query."""
    return exists().where(Workspace.id == model.workspace_id, is_active())


def _messages(
    session: Session,
    model: type[Any],
    message: Callable[..., Message],
    waits: ColumnElement[bool],
    may_wait: ColumnElement[bool],
    *,
    requeue_s: float,
    is_queue_empty: bool,
) -> list[Message]:
    """`may_wait` is what `waits` says of the row alone: for that there are indexes."""
    due = (
        select(model.id)
        .where(
            model.lease_owner.is_(None),
            or_(model.host.is_not(None), may_wait),
            or_(model.host.is_not(None), waits),
            # Nobody listens to the queue of a host that is gone; one that comes back enqueues what it has.
            or_(model.host.is_(None), model.host.not_in(lost_hosts())),
            # Without a supervisor, `lease_until` is when the last message counts as lost; until then it may be queued.
            or_(
                func.coalesce(model.lease_until, model.updated_at + timedelta(seconds=requeue_s))
                < database_now(),
                and_(
                    model.host.is_(None),
                    _was_enqueued_before(model, requeue_s) if is_queue_empty else false(),
                ),
            ),
        )
        .order_by(model.updated_at)
        .limit(MESSAGES_PER_SWEEP)
        .with_for_update(skip_locked=True)  # two sweeps share the work
        .cte("due")
    )
    interval_s = func.least(_LONGEST_REQUEUE_S, func.greatest(requeue_s, seconds_since(model.updated_at) / 2))
    rows = session.execute(
        update(model)
        .where(model.id == due.c.id)
        .values(lease_until=seconds_from_now(interval_s))
        .returning(model.id, model.workspace_id, model.name, model.host, model.updated_at),
        execution_options={"synchronize_session": False},
    )
    longest_untouched_first = sorted(rows, key=lambda row: row.updated_at)
    return [message(row.id, row.workspace_id, row.name, row.host) for row in longest_untouched_first]


def _was_enqueued_before(model: type[Any], seconds: float) -> ColumnElement[bool]:
    """Whether the last message for a row without a supervisor is older than so many seconds, from when it is lost."""
    # It was sent when the row had waited for two thirds of the time until then, or an hour before, or `seconds`.
    waited_s = extract("epoch", model.lease_until - model.updated_at).cast(Float)
    interval_s = func.least(_LONGEST_REQUEUE_S, func.greatest(seconds, waited_s / 3))
    was_before: ColumnElement[bool] = model.lease_until < seconds_from_now(interval_s - seconds)
    return was_before
