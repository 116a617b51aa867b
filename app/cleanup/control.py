"""The switch that pauses destruction, and the breaker that holds one requester's. Revocation is never paused."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache

from sqlalchemy import ColumnElement, Select, and_, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.access import audit
from app.access.authorize import Actor
from app.access.principal import SERVICE_PREFIX
from app.cleanup.history import record
from app.clock import database_now, seconds_from_now
from app.config import Settings
from app.errors import NotFound
from app.lifecycle import DeletionState
from app.logs import get_logger
from app.models import BUILT_IN, CleanupControl, Deletion, DeletionHold, Workspace
from app.models.audit import AuditEvent
from app.models.workspace import is_active

log = get_logger(__name__)

BREAKER = f"{SERVICE_PREFIX}breaker"
"""The actor of what the breaker does. No token can claim this prefix."""


def state(session: Session) -> CleanupControl:
    """The switch as it is."""
    return session.get_one(CleanupControl, 1)


def set_paused(session: Session, *, paused: bool, actor: Actor | str) -> bool:
    """Pause or resume destruction, for slices that start from now on. False if it was so already."""
    name = actor.id if isinstance(actor, Actor) else actor
    values = (
        {"paused": True, "paused_by": name, "paused_at": database_now()}
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
        audit.record(session, actor, event)
        log.warning(event, actor=name)
    return changed is not None


@dataclass(frozen=True)
class HeldRequester:
    """The unfinished deletions of one requester that no worker begins or goes on with."""

    requested_by: str
    count: int
    since: datetime


def held(session: Session) -> list[HeldRequester]:
    """Every requester whose deletions are held, the longest first."""
    return [HeldRequester(*row) for row in session.execute(_held())]


@cache
def _held() -> Select[str, int, datetime]:
    its = and_(Deletion.requested_by == DeletionHold.requested_by, Deletion.state == DeletionState.DELETING)
    return (
        select(DeletionHold.requested_by, func.count(Deletion.id), DeletionHold.held_at)
        .outerjoin(Deletion, its)
        .where(DeletionHold.released_at.is_(None))
        .group_by(DeletionHold.requested_by, DeletionHold.held_at)
        .order_by(DeletionHold.held_at, DeletionHold.requested_by)
    )


def release(session: Session, actor: Actor, requested_by: str) -> None:
    """Let the workers go on with the deletions of a requester. Raises NotFound if they are not held."""
    released = session.scalar(
        update(DeletionHold)
        .where(DeletionHold.requested_by == requested_by, DeletionHold.released_at.is_(None))
        .values(released_at=database_now())
        .returning(DeletionHold.requested_by)
    )
    if released is None:
        raise NotFound(f"No deletions of '{requested_by}' are held")
    audit.record(session, actor, AuditEvent.DELETIONS_RELEASED, subject=requested_by)
    log.warning(AuditEvent.DELETIONS_RELEASED, actor=actor.id, requested_by=requested_by)


def hold_on_burst(session: Session, settings: Settings, deletion: Deletion) -> None:
    """Hold all deletions of a requester who within the window has asked for more than a person would.

    Only workspaces that are older than the window count: those that scripts make and remove do not. What had begun
    before cannot be restored; what is held and has not begun can.
    """
    if settings.burst_deletions == 0:
        return
    begin = seconds_from_now(-settings.burst_window_seconds)
    number = _count_requests(session, deletion.requested_by, begin)
    if number < settings.burst_deletions:
        return
    # No more are counted than decide.
    limit = int(number / settings.burst_share) + 1
    others = select(Workspace.id).where(
        is_active(),
        Workspace.created_at < begin,
        Workspace.name.not_in(BUILT_IN),
    )
    existed = number + (session.scalar(select(func.count()).select_from(others.limit(limit).subquery())) or 0)
    if number > settings.burst_share * existed:
        window = f"{settings.burst_window_seconds:g} s"
        _hold(session, deletion, reason=f"{number} of {existed} workspaces were deleted within {window}")


def _count_requests(session: Session, requested_by: str, begin: ColumnElement[datetime]) -> int:
    """The requests since `begin` that count for the breaker; none from before the last release."""
    released_at = select(DeletionHold.released_at).where(DeletionHold.requested_by == requested_by)
    since = func.greatest(begin, released_at.scalar_subquery())
    query = select(func.count()).where(
        Deletion.requested_by == requested_by,
        Deletion.requested_at > since,
        Deletion.workspace_created_at < begin,
        Deletion.state != DeletionState.RESTORED,
    )
    return session.scalar(query) or 0


def _hold(session: Session, deletion: Deletion, *, reason: str) -> None:
    values = {"held_at": database_now(), "reason": reason, "released_at": None}
    is_new = session.scalar(
        insert(DeletionHold)
        .values(requested_by=deletion.requested_by, **values)
        .on_conflict_do_update(
            index_elements=["requested_by"], set_=values, where=DeletionHold.released_at.is_not(None)
        )
        .returning(DeletionHold.requested_by)
    )
    if is_new is None:
        return
    record(session, deletion.id, "held", actor=BREAKER, reason=reason)
    audit.record(session, BREAKER, AuditEvent.DELETIONS_HELD, subject=deletion.requested_by, reason=reason)
