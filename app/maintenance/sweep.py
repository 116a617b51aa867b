"""The ten-second round that keeps deletions, jobs and deployments going when messages are lost."""

from dataclasses import dataclass

from sqlalchemy import update

from app.cleanup import sweep as deletions
from app.clock import database_now
from app.context import Context
from app.db import session_scope
from app.logs import get_logger
from app.models import CleanupControl
from app.runtime import sweep as supervisors
from app.runtime.deployments import supervisor as deployments
from app.runtime.jobs import supervisor as jobs
from app.services.deployments import remove_gone

log = get_logger(__name__)


@dataclass(frozen=True)
class Swept:
    """What a sweep found."""

    enqueued: int
    reattempted: int
    ended: int
    """Jobs and deployments whose supervisor was silent, and deployments that were removed."""
    oldest_s: float
    """Age of the oldest unfinished deletion that is due, in seconds."""

    @property
    def found_nothing(self) -> bool:
        """Whether the sweep had nothing to do and nothing is due."""
        return not (self.enqueued or self.reattempted or self.ended or self.oldest_s)

    def __str__(self) -> str:
        return f"enqueued {self.enqueued}, re-attempted {self.reattempted}, oldest {self.oldest_s:.0f} s"


def sweep(context: Context) -> Swept:
    """Enqueue everything that is due and that no worker has, whatever became of its message.

    Also reopens FAILED deletions whose re-attempt has come, ends jobs and deployments whose supervisor has gone
    silent, enqueues those that have none, and removes deployments that have been shown as DELETED long enough.
    Any number of sweeps may run at once.
    """
    with session_scope(context.sessions) as session:
        session.execute(update(CleanupControl).values(last_sweep_at=database_now()))
    with session_scope(context.sessions) as session:
        reattempted = deletions.reattempt_failed(session)
    with session_scope(context.sessions) as session:
        ended = jobs.mark_lost(session) + deployments.mark_lost(session)
    with session_scope(context.sessions) as session:
        ended += remove_gone(session, after_s=context.settings.deleted_deployment_seconds)
    requeue_s = context.settings.requeue_after_seconds
    with session_scope(context.sessions) as session:
        messages, oldest_s = deletions.due_messages(session, requeue_s=requeue_s)
        messages += supervisors.unsupervised_jobs(session, requeue_s=requeue_s)
        messages += supervisors.unsupervised_deployments(session, requeue_s=requeue_s)
    for message in messages:
        context.publisher.publish(message)
    return Swept(enqueued=len(messages), reattempted=reattempted, ended=ended, oldest_s=oldest_s)
