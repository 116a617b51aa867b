"""What is going on with deletions: the read side for the API and the command line."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import ARRAY, Subquery, Uuid, cast, func, select, true
from sqlalchemy.orm import Session, aliased

from app.cleanup import remaining
from app.cleanup.kinds import KINDS, ORDER
from app.clock import Timestamp, seconds_since
from app.lifecycle import DELETION_UNFINISHED, DeletionState, FailureClass
from app.models import Deletion, DeletionFailure, DeletionFailureCount, Deployment, Job
from app.models.deletion import Counts

FAILURES_SHOWN = 100
"""Of one deletion. If the store is down, all failures are alike."""

FAILURES_LISTED = 3
"""Of each deletion in a list."""

_CAUSES_SHOWN = 10

_PATH = re.compile("/[^')]*")
"""What a message has behind the id of a resource: the path of what in it failed."""


class FailureReport(BaseModel):
    """Why one resource is still there, or was left behind."""

    kind: str
    resource_id: str
    name: str
    path: str = Field(description="The resource, or what in it failed, in names: `workspace/fileset/file`.")
    error_class: FailureClass
    message: str
    attempts: int
    first_seen_at: Timestamp
    last_seen_at: Timestamp
    skipped_by: str | None
    skip_reason: str | None

    @classmethod
    def of(cls, failure: Any, workspace_name: str) -> Self:
        """A row of failures, of a deletion of the workspace that had that name."""
        values = {name: getattr(failure, name) for name in cls.model_fields if name != "path"}
        # Not a pattern with the id in it: each would be compiled, which takes longer than all the rest.
        behind = failure.message.split(failure.resource_id)[1:]
        below = next((found[0] for one in behind if (found := _PATH.match(one))), "")
        return cls(**values, path=f"{workspace_name}/{failure.name}{below}")


class Cause(BaseModel):
    """What failures of a kind have in common, and how many have it."""

    kind: str
    error_class: FailureClass
    message: str
    count: int


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
        description="The kinds of which more may remain: all, if the database did not say what there is."
    )
    failures: list[FailureReport] = Field(
        description=f"What is still there and why, the longest known first: up to {FAILURES_SHOWN}, in a list "
        f"{FAILURES_LISTED}. All of them: `GET …/failures`."
    )
    causes: list[Cause] = Field(
        description="What the failures that are not skipped have in common, the most frequent first: up to "
        f"{_CAUSES_SHOWN}."
    )
    eta_seconds: int | None
    running_jobs: int
    running_deployments: int


def report(
    session: Session, deletions: Sequence[Deletion], *, most_failures: int = FAILURES_SHOWN
) -> list[DeletionReport]:
    """Describe deletions, with a number of queries that does not grow with theirs, and of rows that is bounded."""
    unfinished = [one for one in deletions if _is_unfinished(one)]
    held = remaining.count_by_kind(
        session, [one.workspace_id for one in unfinished if one.started_at is None]
    )
    living = [one.workspace_id for one in unfinished]
    jobs, deployments = _running(session, Job, living), _running(session, Deployment, living)
    ids = [one.id for one in deletions]
    failing, causes, paces = (
        _failures(session, ids, most_failures),
        _causes(session, ids),
        _paces(session, ids),
    )
    return [
        _describe(
            one,
            held.get(one.workspace_id),
            failing[one.id][:most_failures],
            causes[one.id],
            paces.get(one.id),
            running_jobs=jobs.get(one.workspace_id, 0),
            running_deployments=deployments.get(one.workspace_id, 0),
        )
        for one in deletions
    ]


def outline(deletion: Deletion) -> DeletionReport:
    """Describe a deletion by its row alone, for when nothing else can be read."""
    return _describe(deletion, None, [], [], None, running_jobs=0, running_deployments=0)


def _is_unfinished(deletion: Deletion) -> bool:
    return deletion.state in DELETION_UNFINISHED


def _left(deletion: Deletion, held: Counts | None) -> Counts | None:
    """What is left, from what there was and what went: once it has begun, nothing is read for it. None: not known."""
    if not _is_unfinished(deletion):
        return {}
    if deletion.started_at is None:
        return held
    left = {kind.name: remaining.reckon(deletion, kind) for kind in ORDER}
    return {kind: number for kind, number in left.items() if number}


def _running(session: Session, model: type[Job | Deployment], workspaces: Sequence[UUID]) -> dict[UUID, int]:
    """How many rows of each workspace may have processes; of all workspaces there are as many as hosts can run."""
    query = select(model.workspace_id, func.count()).where(
        model.host.is_not(None), model.workspace_id.in_(workspaces)
    )
    return dict(session.execute(query.group_by(model.workspace_id)).all())


def _paces(session: Session, ids: Sequence[UUID]) -> dict[UUID, tuple[float, float]]:
    """Of each deletion that made progress, by the database's clock: for how many seconds it did, and since when not."""
    worked_s = seconds_since(Deletion.started_at) - seconds_since(Deletion.last_progress_at)
    query = select(Deletion.id, worked_s, seconds_since(Deletion.last_progress_at))
    progressed = query.where(
        Deletion.id.in_(ids), Deletion.started_at.is_not(None), Deletion.last_progress_at.is_not(None)
    )
    return {deletion_id: (worked, idle) for deletion_id, worked, idle in session.execute(progressed)}


def _failures(session: Session, ids: Sequence[UUID], most: int) -> dict[UUID, list[DeletionFailure]]:
    """Up to `most` failures of each deletion that are open, the longest known first, and as many skipped ones."""
    found: dict[UUID, list[DeletionFailure]] = defaultdict(list)
    is_open = DeletionFailure.skipped_by.is_(None)
    # Each in the order of an index, so that it ends after `most` rows.
    for which, *order in (
        (is_open, DeletionFailure.first_seen_at, DeletionFailure.resource_id),
        (~is_open, DeletionFailure.kind, DeletionFailure.resource_id),
    ):
        asked = _asked(ids)
        some = select(DeletionFailure).where(DeletionFailure.deletion_id == asked.c.id, which)
        shown = aliased(DeletionFailure, some.order_by(*order).limit(most).lateral())
        for failure in session.scalars(select(shown).select_from(asked).join(shown, true())):
            found[failure.deletion_id].append(failure)
    return found


def _causes(session: Session, ids: Sequence[UUID]) -> dict[UUID, list[Cause]]:
    """What the open failures of each deletion have in common, the most frequent first. Their numbers are kept."""
    asked, count = _asked(ids), DeletionFailureCount
    some = (
        select(count)
        .where(count.deletion_id == asked.c.id, ~count.is_skipped)
        .order_by(count.number.desc())
        .limit(_CAUSES_SHOWN)
        .lateral()
    )
    most_frequent = aliased(count, some)
    rows = session.scalars(
        select(most_frequent)
        .select_from(asked)
        .join(most_frequent, true())
        .order_by(most_frequent.number.desc(), most_frequent.cause)
    )
    found: dict[UUID, list[Cause]] = defaultdict(list)
    for row in rows:
        one = Cause(kind=row.kind, error_class=row.error_class, message=row.cause, count=row.number)
        found[row.deletion_id].append(one)
    return found


def _asked(ids: Sequence[UUID]) -> Subquery:
    return select(func.unnest(cast(list(ids), ARRAY(Uuid))).label("id")).subquery()


def _describe(
    deletion: Deletion,
    held: Counts | None,
    failing: list[DeletionFailure],
    causes: list[Cause],
    pace: tuple[float, float] | None,
    **running: int,
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
        remaining=left or {},
        at_least=list(KINDS) if left is None else [],
        failures=[FailureReport.of(one, deletion.workspace_name) for one in failing],
        causes=causes,
        eta_seconds=_eta(deletion, left, pace) if is_living else None,
        **running,
    )


def _eta(deletion: Deletion, left: Counts | None, pace: tuple[float, float] | None) -> int | None:
    """Seconds until the end at the average speed so far.

    None before anything was deleted, and if it is not known what is left.
    Time without progress counts as spent, not as speed: otherwise a deletion that waits would seem ever further away.
    """
    deleted = sum(deletion.deleted_counts.values())
    if pace is None or not deleted or left is None:
        return None
    worked_s, idle_s = pace
    return max(round(worked_s / deleted * sum(left.values()) - idle_s), 0)
