"""The switch that pauses destruction, and the breaker that throws it. Revocation is never paused."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.access import audit
from app.access.authorize import Actor
from app.cleanup.history import record
from app.clock import database_now, seconds_from_now
from app.config import Settings
from app.logs import get_logger
from app.models import CleanupControl, Deletion
from app.models.audit import AuditEvent

log = get_logger(__name__)

BREAKER = "breaker"


def state(session: Session) -> CleanupControl:
    """The switch as it is."""
    return session.get_one(CleanupControl, 1)


def set_paused(session: Session, *, paused: bool, actor: Actor | str, reason: str | None = None) -> bool:
    """Pause or resume destruction, for slices that start from now on. False if it was so already."""
    name = actor.id if isinstance(actor, Actor) else actor
    values = (
        {"paused": True, "paused_by": name, "paused_at": database_now(), "reason": reason}
        if paused
        else {
            "paused": False,
            "paused_by": None,
            "paused_at": None,
            "reason": None,
            "resumed_at": database_now(),
        }
    )
    changed = session.scalars(
        update(CleanupControl)
        .where(CleanupControl.paused.is_(not paused))
        .values(**values)
        .returning(CleanupControl),
        execution_options={"populate_existing": True},
    ).one_or_none()
    if changed:
        event = AuditEvent.DESTRUCTION_PAUSED if paused else AuditEvent.DESTRUCTION_RESUMED
        audit.record(session, actor, event, reason=reason)
        log.warning(event, actor=name, reason=reason)
    return changed is not None


def trip_on_burst(session: Session, settings: Settings, deletion: Deletion) -> None:
    """Pause destruction when more deletions are asked for than a person would: everything can still be restored.

    Counts what was requested within the window, but nothing from before an administrator last resumed.
    """
    limit = settings.burst_deletions
    if limit == 0:
        return
    # `greatest` ignores null: nobody has resumed yet.
    since = func.greatest(seconds_from_now(-settings.burst_window_seconds), CleanupControl.resumed_at)
    recent = (
        select(Deletion.id)
        .where(Deletion.requested_at > select(since).scalar_subquery())
        .limit(limit + 1)
        .subquery()
    )
    if (session.scalar(select(func.count()).select_from(recent)) or 0) <= limit:
        return
    reason = f"more than {limit} deletions were requested within {settings.burst_window_seconds:g} s"
    if set_paused(session, paused=True, actor=BREAKER, reason=reason):
        record(session, deletion.id, "destruction_paused", actor=BREAKER, reason=reason)
