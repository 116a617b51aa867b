"""The lease of a deletion: which worker may work on it. Its writes pass the fencing token of the claim."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    Text,
    Uuid,
    and_,
    bindparam,
    exists,
    func,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from app import lease
from app.cleanup.history import record
from app.clock import database_now, seconds_from_now, seconds_since
from app.lease import RELEASED, LeaseLost
from app.lifecycle import DeletionState
from app.models import Deletion, DeletionFailure
from app.models.deletion import is_due


@dataclass(frozen=True)
class Claim:
    """The right to work on one deletion, until its fencing token is outdated."""

    id: UUID
    workspace_id: UUID
    workspace_name: str
    fence: int
    owner: str
    phase: str | None
    phase_started_at: datetime | None
    cursor: UUID | None
    round: int
    """The same for as long as the claim holds."""
    lease_s: float
    """How many seconds the lease lasts from each renewal on."""
    is_first: bool
    """No worker has begun yet: also if one has claimed it, and was lost before it could."""
    is_takeover: bool
    """The worker before us vanished without giving its lease back."""
    is_forced: bool
    """An administrator's force is still to be carried out."""
    has_failures: bool
    """Failures of it may be on record, skipped ones included."""


def claim(session: Session, *, owner: str, lease_s: float, deletion_id: UUID | None = None) -> Claim | None:
    """Take the lease of one due deletion of the requester whose turn it is, for `lease_s` seconds; None if none is due.

    Of that requester's it is the one with `deletion_id`, or else the one that has been due the longest.
    """
    requester = session.scalar(_whose_turn())
    if requester is None:
        return None
    values = {"requester": requester, "wanted_id": deletion_id, "claimed_by": owner, "seconds": lease_s}
    for choice in _Choice if deletion_id else (_Choice.THEIRS, _Choice.ANY):
        # The deletion with its new lease, who had it before, and whether it has failures.
        row = session.execute(_leasing(choice), values).one_or_none()
        if row is not None:
            break
    else:
        return None
    deletion, owner_before, has_failures = row
    taken = Claim(
        id=deletion.id,
        workspace_id=deletion.workspace_id,
        workspace_name=deletion.workspace_name,
        fence=deletion.fence,
        owner=owner,
        phase=deletion.phase,
        phase_started_at=deletion.phase_started_at,
        cursor=deletion.cursor,
        round=deletion.round,
        lease_s=lease_s,
        is_first=deletion.started_at is None,
        is_takeover=owner_before is not None,
        is_forced=deletion.force is not None,
        has_failures=has_failures,
    )
    if taken.is_takeover:
        record(session, taken.id, "worker_lost", actor=owner, lost=owner_before, phase=taken.phase)
    return taken


class _Choice(Enum):
    """What a deletion must be besides due, the most wanted first."""

    WANTED = auto()
    THEIRS = auto()
    ANY = auto()
    """Other workers have just taken those of the requester whose turn it is."""


@cache
def _whose_turn() -> Select[str | None]:
    """The requester whose turn it is: in the order of their names, the next one with anything due.

    A message does not decide it: a thousand of one requester's stand in the queue before a neighbour's first.
    """
    last = (
        select(Deletion.requested_by)
        .where(Deletion.claimed_at.is_not(None))
        .order_by(Deletion.claimed_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    due = select(Deletion.requested_by).where(is_due()).order_by(Deletion.requested_by).limit(1)
    following = due.where(Deletion.requested_by > func.coalesce(last, ""))
    return select(func.coalesce(following.scalar_subquery(), due.scalar_subquery()))


@cache
def _leasing(choice: _Choice) -> ReturningUpdate[Deletion, str | None, bool]:
    """Takes the lease of one deletion. Made once: to make it anew took as long as to carry it out."""
    is_theirs = Deletion.requested_by == bindparam("requester", type_=Text)
    which = {
        _Choice.WANTED: and_(is_theirs, Deletion.id == bindparam("wanted_id", type_=Uuid)),
        _Choice.THEIRS: is_theirs,
        _Choice.ANY: true(),
    }
    due = (
        select(Deletion.id, Deletion.lease_owner.label("owner_before"))
        .where(is_due(), which[choice])
        .order_by(Deletion.next_run_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    has_failures = exists().where(DeletionFailure.deletion_id == Deletion.id)
    return (
        update(Deletion)
        .where(Deletion.id == due.c.id)
        .values(
            fence=Deletion.fence + 1,
            lease_owner=bindparam("claimed_by", type_=Text),
            lease_until=seconds_from_now(bindparam("seconds", type_=Float)),
            claimed_at=database_now(),
        )
        .returning(Deletion, due.c.owner_before, has_failures)
        .execution_options(populate_existing=True, synchronize_session=False)
    )


def is_held(claim: Claim) -> ColumnElement[bool]:
    """The condition under which the claimed row may still be written: the fencing token is not outdated."""
    return and_(lease.is_held(Deletion, claim.id, claim.fence), _is_owner(claim))


def lost(claim: Claim) -> LeaseLost:
    """The error of a write that is refused because the fencing token is outdated."""
    return LeaseLost(Deletion, claim.id, claim.fence)


def write(session: Session, claim: Claim, **values: Any) -> Deletion:
    """Change the claimed row but for its state. Raises LeaseLost if the fencing token is outdated."""
    is_deleting = Deletion.state == DeletionState.DELETING
    return lease.write(session, Deletion, claim.id, claim.fence, _is_owner(claim), is_deleting, **values)


def _is_owner(claim: Claim) -> ColumnElement[bool]:
    return Deletion.lease_owner == claim.owner


def renew(session: Session, claim: Claim, *, cursor: UUID | None = None, **values: Any) -> Deletion:
    """Keep the lease, note how far the pass has come, and change other values with it."""
    return write(session, claim, cursor=cursor, lease_until=seconds_from_now(claim.lease_s), **values)


def release(session: Session, claim: Claim, *, cursor: UUID | None) -> Deletion:
    """Give the lease back with work left, due now: to the end of the queue. The deletion as it is now."""
    now = database_now()
    return write(session, claim, cursor=cursor, next_run_at=now, last_enqueued_at=now, **RELEASED)


def seconds_in_phase(session: Session, claim: Claim) -> float:
    """For how long the claimed deletion has been at its phase."""
    since = select(seconds_since(Deletion.phase_started_at)).where(Deletion.id == claim.id)
    return session.scalars(since).one() or 0.0
