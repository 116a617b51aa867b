"""The ten-second round that keeps deletions, jobs and deployments going when messages are lost."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Executable, bindparam, case, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.access.keys.registry import prune_keys
from app.cleanup import sweep as deletions
from app.clock import database_now, seconds_from_now
from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.dispatch import RUNTIME_QUEUE, Message, notify_after_commit, orphan_scan_message
from app.health.metrics.counters import fold_counters
from app.logs import explain, get_logger
from app.maintenance import orphan_scan
from app.maintenance.retention import prune_deliveries, prune_records
from app.models import CleanupControl, MaintenanceStep
from app.models.maintenance import Step
from app.notifications import sweep as notifications
from app.runtime import sweep as runtime
from app.runtime.deployments import supervisor as deployments
from app.runtime.jobs import supervisor as jobs
from app.runtime.jobs.turns import messages_for_free_slots
from app.services.deployments import remove_gone
from app.services.job_removal import expire_ended
from app.services.listing import fold_counts
from app.services.projects import finish_deletions

log = get_logger(__name__)


@dataclass
class Swept:
    """What a sweep found, or one step of it."""

    enqueued: int = 0
    reattempted: int = 0
    ended: int = 0
    """Jobs and deployments whose supervisor was silent, and deployments and projects that were removed."""
    oldest_s: float = 0.0
    """Age of the oldest unfinished deletion that is due, in seconds."""
    failed: list[Step] = field(default_factory=list)

    @property
    def found_nothing(self) -> bool:
        """Whether the sweep had nothing to do, nothing is due, and no step failed."""
        return self == Swept()

    def add(self, found: "Swept") -> None:
        """Count what a step found."""
        self.enqueued += found.enqueued
        self.reattempted += found.reattempted
        self.ended += found.ended
        self.oldest_s += found.oldest_s

    def __str__(self) -> str:
        failed = f"; failed: {', '.join(self.failed)}" if self.failed else ""
        return (
            f"enqueued {self.enqueued}, re-attempted {self.reattempted}, oldest {self.oldest_s:.0f} s{failed}"
        )


def sweep(context: Context) -> Swept:
    """Enqueue everything that is due and that no worker has, whatever became of its message.

    Also reopens FAILED deletions whose re-attempt has come, ends jobs and deployments whose supervisor has gone
    silent, enqueues those that have none, and notifications that are due, removes deployments that have been shown as
    DELETED long enough, goes on with projects that too much referred to for one request, and with the orphan scan, and
    forgets old access keys and records whose retention is over. Requests the deletion of jobs that ended long ago.
    Each step is a transaction of its own, and notes its success in it. One that fails is logged and named in the
    result; the others go on. Any number of sweeps may run at once.
    """
    swept = Swept()
    for step, take in _STEPS.items():
        try:
            with session_scope(context.sessions) as session:
                found = take(session, context)
                _note_success(session, step, context.settings)
        except Exception as error:  # the other steps must not wait for this one
            is_bug = not isinstance(error, SQLAlchemyError)
            log.exception("maintenance.step_failed", step=step.value, error=explain(error), exc_info=is_bug)
            swept.failed.append(step)
        else:
            swept.add(found)
    if not swept.failed:
        with session_scope(context.sessions) as session:
            session.execute(update(CleanupControl).values(last_sweep_at=database_now()))
    return swept


def has_just_swept(context: Context) -> bool:
    """Whether a sweep succeeded less than a quarter of the time between two ago, by the database's clock.

    The messages of an outage of maintenance come all at once, and one sweep is as good as all of them.
    """
    lately = seconds_from_now(-context.settings.sweep_seconds / 4)
    with session_scope(context.sessions) as session:
        return bool(session.scalar(select(exists().where(CleanupControl.last_sweep_at > lately))))


def _note_success(session: Session, step: Step, settings: Settings) -> None:
    session.execute(_success(_longest_pause(settings)), {"step": step.value})


@cache
def _success(pause_s: float) -> Executable:
    """The statement for any step: to put it together takes longer than to carry it out."""
    now = database_now()
    success = insert(MaintenanceStep.__table__).values(  # type: ignore[arg-type]
        name=bindparam("step"), last_success_at=now, unbroken_since=now
    )
    since = case((_is_unbroken(pause_s), func.coalesce(MaintenanceStep.unbroken_since, now)), else_=now)
    return success.on_conflict_do_update(
        index_elements=["name"],
        set_={"last_success_at": success.excluded.last_success_at, "unbroken_since": since},
    )


def _longest_pause(settings: Settings) -> float:
    """Seconds between two successes of a step within which no outage can have cost a supervisor its lease.

    A supervisor renews its lease after a third of its time, and needs a moment to find a database that is back.
    """
    return max(settings.sweep_seconds * 1.5, settings.runtime_lease_seconds / 2)


def _is_unbroken(pause_s: float) -> ColumnElement[bool]:
    """Whether the last success of a step lies no further back than that."""
    return MaintenanceStep.last_success_at >= seconds_from_now(-pause_s)


def _silence_counts(session: Session, step: Step, context: Context) -> bool:
    """Whether sweeps have succeeded for one whole lease: only then is a supervisor that renewed nothing lost.

    In an outage of the database no supervisor can renew its lease, and afterwards each has a whole lease for it.
    """
    a_lease_ago = seconds_from_now(-context.settings.runtime_lease_seconds)
    watched = exists().where(
        MaintenanceStep.name == step.value,
        _is_unbroken(_longest_pause(context.settings)),
        MaintenanceStep.unbroken_since <= a_lease_ago,
    )
    return bool(session.scalar(select(watched)))


def _reattempt_deletions(session: Session, _: Context) -> Swept:
    return Swept(reattempted=deletions.reattempt_failed(session))


def _enqueue_deletions(session: Session, context: Context) -> Swept:
    messages, oldest_s = deletions.due_messages(session, requeue_s=context.settings.requeue_after_seconds)
    return _enqueue(session, context, messages, oldest_s)


def _enqueue_deliveries(session: Session, context: Context) -> Swept:
    requeue_s = context.settings.requeue_after_seconds
    return _enqueue(session, context, notifications.due_messages(session, requeue_s=requeue_s))


def _mark_lost_jobs(session: Session, context: Context) -> Swept:
    is_due = _silence_counts(session, Step.MARK_LOST_JOBS, context)
    return Swept(ended=jobs.mark_lost(session) if is_due else 0)


def _expire_jobs(session: Session, context: Context) -> Swept:
    if days := context.settings.job_retention_days:
        expire_ended(session, older_than_s=days * 86400)
    return Swept()


def _enqueue_jobs(session: Session, context: Context) -> Swept:
    messages = runtime.unsupervised_jobs(session, **_requeueing(context))
    return _enqueue(session, context, [*messages, *messages_for_free_slots(session, context)])


def _mark_lost_deployments(session: Session, context: Context) -> Swept:
    is_due = _silence_counts(session, Step.MARK_LOST_DEPLOYMENTS, context)
    return Swept(ended=deployments.mark_lost(session) if is_due else 0)


def _enqueue_deployments(session: Session, context: Context) -> Swept:
    return _enqueue(session, context, runtime.unsupervised_deployments(session, **_requeueing(context)))


def _requeueing(context: Context) -> dict[str, Any]:
    """When messages of jobs and deployments count as lost."""
    return {
        "requeue_s": context.settings.requeue_after_seconds,
        "is_queue_empty": context.publisher.is_empty(RUNTIME_QUEUE),
    }


def _remove_deployments(session: Session, context: Context) -> Swept:
    return Swept(ended=remove_gone(session, after_s=context.settings.deleted_deployment_seconds))


def _remove_projects(_: Session, context: Context) -> Swept:
    return Swept(ended=finish_deletions(context.sessions))


def _fold_counts(session: Session, _: Context) -> Swept:
    fold_counts(session)
    fold_counters(session)
    return Swept()


def _prune_access_keys(session: Session, context: Context) -> Swept:
    prune_keys(session, older_than_s=context.settings.access_key_retention_days * 86400)
    return Swept()


def _prune_records(session: Session, context: Context) -> Swept:
    prune_records(session, at_most=context.settings.chunk_size)
    prune_deliveries(session, context.settings)
    return Swept()


def _continue_orphan_scan(session: Session, context: Context) -> Swept:
    return _enqueue(session, context, [orphan_scan_message()] if orphan_scan.is_to_go_on(session) else [])


def _enqueue(session: Session, context: Context, messages: list[Message], oldest_s: float = 0.0) -> Swept:
    for message in messages:
        notify_after_commit(session, context.publisher, message)
    return Swept(enqueued=len(messages), oldest_s=oldest_s)


_STEPS: dict[Step, Callable[[Session, Context], Swept]] = {
    Step.REATTEMPT_DELETIONS: _reattempt_deletions,
    Step.ENQUEUE_DELETIONS: _enqueue_deletions,
    Step.ENQUEUE_DELIVERIES: _enqueue_deliveries,
    Step.MARK_LOST_JOBS: _mark_lost_jobs,
    Step.EXPIRE_JOBS: _expire_jobs,
    Step.ENQUEUE_JOBS: _enqueue_jobs,
    Step.MARK_LOST_DEPLOYMENTS: _mark_lost_deployments,
    Step.ENQUEUE_DEPLOYMENTS: _enqueue_deployments,
    Step.REMOVE_DEPLOYMENTS: _remove_deployments,
    Step.REMOVE_PROJECTS: _remove_projects,
    Step.FOLD_COUNTS: _fold_counts,
    Step.PRUNE_ACCESS_KEYS: _prune_access_keys,
    Step.PRUNE_RECORDS: _prune_records,
    Step.CONTINUE_ORPHAN_SCAN: _continue_orphan_scan,
}
