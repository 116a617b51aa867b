"""What is going on with deletions: the read side for the API, the command line and the metrics."""

from collections.abc import Sequence
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from app.cleanup import remaining
from app.cleanup.kinds import KINDS, ORDER
from app.cleanup.remaining import Contents
from app.clock import Timestamp, seconds_since
from app.lifecycle import DeletionState, FailureClass
from app.models import Deletion, DeletionFailure


class FailureReport(BaseModel):
    """Why one resource is still there, or was left behind."""

    model_config = ConfigDict(from_attributes=True)

    kind: str
    resource_id: str
    name: str
    error_class: FailureClass
    message: str
    attempts: int
    first_seen_at: Timestamp
    last_seen_at: Timestamp
    skipped_by: str | None
    skip_reason: str | None


class DeletionReport(BaseModel):
    """A deletion as clients and operators see it."""

    id: UUID
    workspace_id: UUID
    workspace_name: str
    state: DeletionState
    phase: str | None
    requested_by: str
    requested_at: Timestamp
    request_reason: str | None
    purge_after: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    attempts: int
    round: int
    next_run_at: Timestamp | None
    next_reattempt_at: Timestamp | None
    reason: str | None
    deleted: dict[str, int]
    remaining: dict[str, int] = Field(description="Reckoned from `deleted` once destruction has begun.")
    at_least: list[str] = Field(
        description="The kinds of which more may remain: there are so many that not all were counted."
    )
    failures: list[FailureReport]
    eta_seconds: int | None


_FAILURES_SHOWN = 100
"""Per deletion. If the store is down, all failures are alike."""


def report(session: Session, deletions: Sequence[Deletion]) -> list[DeletionReport]:
    """Describe deletions, with a number of queries that does not grow with theirs."""
    waiting = [one.workspace_id for one in deletions if _is_unfinished(one) and one.started_at is None]
    held = remaining.count_by_kind(session, waiting)
    failing = _failures(session, [one.id for one in deletions])
    paces = _paces(session, [one.id for one in deletions])
    return [
        _describe(one, held.get(one.workspace_id), failing.get(one.id, []), paces.get(one.id))
        for one in deletions
    ]


def outline(deletion: Deletion) -> DeletionReport:
    """Describe a deletion by its row alone, for when nothing else can be read."""
    return _describe(deletion, None, [], None)


def _is_unfinished(deletion: Deletion) -> bool:
    return deletion.state in {DeletionState.DELETING, DeletionState.FAILED}


def _left(deletion: Deletion, held: Contents | None) -> Contents:
    """What is left, from what there was and what went: once it has begun, nothing is counted for an answer."""
    if not _is_unfinished(deletion):
        return Contents({}, [])
    if deletion.started_at is None:
        return held or Contents({}, list(KINDS))
    left = {kind.name: remaining.reckon(deletion, kind) for kind in ORDER}
    at_least = deletion.created_at_least
    return Contents(
        {kind: number for kind, number in left.items() if number or kind in at_least}, list(at_least)
    )


def _paces(session: Session, ids: Sequence[UUID]) -> dict[UUID, tuple[float, float]]:
    """Of each deletion that made progress, by the database's clock: for how many seconds it did, and since when not."""
    worked_s = seconds_since(Deletion.started_at) - seconds_since(Deletion.last_progress_at)
    query = select(Deletion.id, worked_s, seconds_since(Deletion.last_progress_at))
    progressed = query.where(
        Deletion.id.in_(ids), Deletion.started_at.is_not(None), Deletion.last_progress_at.is_not(None)
    )
    return {deletion_id: (worked, idle) for deletion_id, worked, idle in session.execute(progressed)}


def _failures(session: Session, ids: Sequence[UUID]) -> dict[UUID, list[FailureReport]]:
    place = func.row_number().over(
        partition_by=DeletionFailure.deletion_id,
        order_by=(DeletionFailure.first_seen_at, DeletionFailure.resource_id),
    )
    numbered = (
        select(DeletionFailure, place.label("place")).where(DeletionFailure.deletion_id.in_(ids)).subquery()
    )
    shown = aliased(DeletionFailure, numbered)
    rows = session.scalars(
        select(shown)
        .where(numbered.c.place <= _FAILURES_SHOWN)
        .order_by(numbered.c.deletion_id, numbered.c.place)
    )
    found: dict[UUID, list[FailureReport]] = {}
    for row in rows:
        found.setdefault(row.deletion_id, []).append(FailureReport.model_validate(row))
    return found


def _describe(
    deletion: Deletion, held: Contents | None, failing: list[FailureReport], pace: tuple[float, float] | None
) -> DeletionReport:
    is_living = deletion.state is DeletionState.DELETING
    left = _left(deletion, held)
    return DeletionReport(
        id=deletion.id,
        workspace_id=deletion.workspace_id,
        workspace_name=deletion.workspace_name,
        state=deletion.state,
        phase=deletion.phase,
        requested_by=deletion.requested_by,
        requested_at=deletion.requested_at,
        request_reason=deletion.request_reason,
        purge_after=deletion.purge_after,
        started_at=deletion.started_at,
        finished_at=deletion.finished_at,
        attempts=deletion.attempts,
        round=deletion.round,
        next_run_at=deletion.next_run_at if is_living else None,
        next_reattempt_at=deletion.next_reattempt_at,
        reason=deletion.reason,
        deleted=deletion.deleted_counts,
        remaining=left.numbers,
        at_least=left.at_least,
        failures=failing,
        eta_seconds=_eta(deletion, left, pace) if is_living else None,
    )


def _eta(deletion: Deletion, left: Contents, pace: tuple[float, float] | None) -> int | None:
    """Seconds until the end at the average speed so far, or None before anything was deleted or if more may be left.

    Time without progress counts as spent, not as speed: otherwise a deletion that waits would seem ever further away.
    """
    deleted = sum(deletion.deleted_counts.values())
    if pace is None or not deleted or left.at_least:
        return None
    worked_s, idle_s = pace
    return max(round(worked_s / deleted * sum(left.numbers.values()) - idle_s), 0)
