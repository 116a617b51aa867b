"""What is going on with deletions: the read side for the API and the command line."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from app.cleanup import remaining
from app.cleanup.kinds import KINDS, ORDER
from app.cleanup.report.beside import MOST_CAUSES, Beside, read_beside
from app.clock import Timestamp
from app.lifecycle import DELETION_UNFINISHED, DeletionState, FailureClass
from app.models import Deletion
from app.models.deletion import Counts

FAILURES_SHOWN = 100
"""Of one deletion. If the store is down, all failures are alike."""

FAILURES_LISTED = 3
"""Of each deletion in a list."""

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
        """A failure, or a row of its columns, of a deletion of the workspace that had that name."""
        values = {name: getattr(failure, name) for name in cls.model_fields if name != "path"}
        return cls.at(values, workspace_name)

    @classmethod
    def at(cls, values: Mapping[str, Any], workspace_name: str) -> Self:
        """The same of all its fields but the path."""
        # Not a pattern with the id in it: each would be compiled, which takes longer than all the rest.
        behind = values["message"].split(values["resource_id"])[1:]
        below = next((found[0] for one in behind if (found := _PATH.match(one))), "")
        return cls(**values, path=f"{workspace_name}/{values['name']}{below}")


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
        f"{MOST_CAUSES}."
    )
    eta_seconds: int | None
    running_jobs: int
    running_deployments: int


def report(
    session: Session, deletions: Sequence[Deletion], *, most_failures: int = FAILURES_SHOWN
) -> list[DeletionReport]:
    """Describe deletions, with a number of queries that does not grow with theirs, and of rows that is bounded."""
    if not deletions:
        return []
    unfinished = [one for one in deletions if _is_unfinished(one)]
    held = remaining.count_by_kind(
        session, [one.workspace_id for one in unfinished if one.started_at is None]
    )
    living = {one.id for one in unfinished}
    beside = read_beside(session, deletions, living=living, most_failures=most_failures)
    return [_describe(one, held.get(one.workspace_id), beside[one.id]) for one in deletions]


def outline(deletion: Deletion) -> DeletionReport:
    """Describe a deletion by its row alone, for when nothing else can be read."""
    return _describe(deletion, None, Beside())


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


def _describe(deletion: Deletion, held: Counts | None, beside: Beside) -> DeletionReport:
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
        failures=[FailureReport.at(one, deletion.workspace_name) for one in beside.failures],
        causes=[Cause(**cause) for cause in beside.causes],
        eta_seconds=_eta(deletion, left, beside.now) if is_living else None,
        running_jobs=beside.running_jobs,
        running_deployments=beside.running_deployments,
    )


def _eta(deletion: Deletion, left: Counts | None, now: datetime | None) -> int | None:
    """Seconds from `now` of the database until the end at the average speed so far.

    None before anything was deleted, and if it is not known what is left.
    Time without progress counts as spent, not as speed: otherwise a deletion that waits would seem ever further away.
    Time in which it was FAILED counts as neither.
    """
    deleted, worked_s = sum(deletion.deleted_counts.values()), worked_seconds(deletion)
    if now is None or worked_s is None or not deleted or left is None:
        return None
    since = max(at for at in (deletion.last_progress_at, deletion.reopened_at) if at)
    return max(round(worked_s / deleted * sum(left.values()) - (now - since).total_seconds()), 0)


def worked_seconds(deletion: Deletion) -> float | None:
    """How long was worked on a deletion until its last progress; None before the first."""
    if deletion.worked_seconds is not None:
        return deletion.worked_seconds
    began, progressed = deletion.started_at, deletion.last_progress_at
    return (progressed - began).total_seconds() if began and progressed else None
