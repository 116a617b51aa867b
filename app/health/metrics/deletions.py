"""What the deletions that are not over are doing, since when, and what stands in their way.

Nothing here reads a deletion that is DONE: there are ever more of those.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from prometheus_client.core import Metric
from sqlalchemy import ColumnElement, Select, and_, case, exists, func, literal_column, or_, select, true
from sqlalchemy.orm import Session

from app.clock import database_now
from app.health.metrics.families import Samples, gauge
from app.lease import holds
from app.lifecycle import DELETION_UNFINISHED, DeletionState, FailureClass, WorkspaceState
from app.models import CleanupControl, Deletion, DeletionFailureCount, Workspace
from app.models.deletion import is_in, is_on_hold
from app.models.workspace import is_active

CONDITIONS = ("running", "waiting", "backing_off", "grace", "paused", "hung")
"""What a deletion that is DELETING is doing; docs/cleanup.md says what each means."""

_FAILED = "failed"
_NOT_BEGUN, _LAST = "none", "finalize"
"""The phase of a deletion that has not begun, and of one of which only the workspace row is left."""


@dataclass(frozen=True)
class Group:
    """The living deletions that are at the same phase in the same condition."""

    phase: str
    condition: str
    is_held: bool
    number: int
    since: float | None
    progress: float | None


def deletion_metrics(session: Session) -> Iterator[Metric]:
    """Three statements, whose time grows with the deletions that are not over."""
    groups = living_groups(session)
    active = [one for one in groups if one.condition != _FAILED]
    failed = [one for one in groups if one.condition == _FAILED]
    numbers = {
        state: sum(one.number for one in of)
        for state, of in zip(DELETION_UNFINISHED, (active, failed), strict=True)
    }
    yield _workspaces(session, numbers)
    yield gauge(
        "workspaces_deletions",
        "Deletions that are not over, by state.",
        {(state.value,): number for state, number in numbers.items()},
        labels=["state"],
    )
    yield _by_condition(active)
    yield gauge(
        "workspaces_deletions_held",
        "Deletions that the breaker holds.",
        {(): sum(one.number for one in active if one.is_held)},
    )
    yield gauge(
        "workspaces_deletion_oldest_timestamp_seconds",
        "Since when the oldest deletion of a state may go on: its request, or the end of its grace period. "
        "Missing while there is none.",
        {
            (state.value,): oldest
            for state, of in zip(DELETION_UNFINISHED, (active, failed), strict=True)
            if (oldest := _oldest(of)) is not None
        },
        labels=["state"],
    )
    progress = max((one.progress for one in active if one.progress is not None), default=_oldest(active))
    yield gauge(
        "workspaces_deletion_last_progress_timestamp_seconds",
        "When one of the deletions that are DELETING last made progress; before the first, since when the oldest may. "
        "Missing while there is none beyond its grace period.",
        {} if progress is None else {(): progress},
    )
    yield _failures(session)


def living_groups(session: Session) -> list[Group]:
    """The deletions that are not over, FAILED ones included, by phase and condition."""
    return [Group(*row) for row in session.execute(_living())]


def _workspaces(session: Session, numbers: dict[DeletionState, int]) -> Metric:
    # By the index of names, whose entries are those of ACTIVE ones. A workspace in another state follows its deletion.
    active = session.scalar(select(func.count()).select_from(Workspace).where(is_active())) or 0
    states = {WorkspaceState.ACTIVE: active} | {
        WorkspaceState(state): number for state, number in numbers.items()
    }
    samples: Samples = {(state.value,): number for state, number in states.items()}
    return gauge("workspaces", "Workspaces by state.", samples, labels=["state"])


def _by_condition(active: list[Group]) -> Metric:
    found: Counter[tuple[str, ...]] = Counter()
    for one in active:
        found[one.phase, one.condition] += one.number
    return gauge(
        "workspaces_deletions_active",
        "Deletions that are DELETING, by what they are at and what they are doing: running, waiting, backing_off, "
        "grace, paused or hung.",
        found,
        labels=["phase", "condition"],
    )


def _oldest(groups: list[Group]) -> float | None:
    return min((one.since for one in groups if one.since is not None), default=None)


@cache
def _living() -> Select[*tuple[Any, ...]]:
    """Groups of the living deletions, as `Group`: found by the index of those that are living."""
    is_deleting = is_in(DeletionState.DELETING)
    begun = case((Deletion.started_at.is_(None), _NOT_BEGUN), else_=_LAST)
    groups: list[ColumnElement[Any]] = [
        func.coalesce(Deletion.phase, begun),
        condition(is_deleting),
        and_(is_deleting, is_on_hold()),
    ]
    may_go_on = Deletion.purge_after <= database_now()
    return (
        select(
            *groups,
            func.count(),
            func.extract("epoch", func.min(Deletion.purge_after).filter(may_go_on)),
            func.extract("epoch", func.max(Deletion.last_progress_at)),
        )
        .where(is_in(*DELETION_UNFINISHED))
        .group_by(*(literal_column(str(number)) for number in range(1, len(groups) + 1)))
    )


def condition(is_deleting: ColumnElement[bool]) -> ColumnElement[str]:
    """What a living deletion is doing."""
    paused = exists().where(CleanupControl.paused)
    is_in_grace = and_(Deletion.started_at.is_(None), Deletion.purge_after > database_now())
    return case(
        (~is_deleting, _FAILED),
        (is_in_grace, "grace"),
        # What runs goes on to the end of its slice.
        (and_(~holds(Deletion), or_(paused, is_on_hold())), "paused"),
        (_meets_time_outs(), "hung"),
        (holds(Deletion), "running"),
        # A deletion that only waits for something to stop counts its polls.
        (and_(Deletion.polls == 0, Deletion.next_run_at > database_now()), "backing_off"),
        else_="waiting",
    )


def _meets_time_outs() -> ColumnElement[bool]:
    """Whether what the deletion is at accepts calls and does not answer them."""
    count = DeletionFailureCount
    time_outs = select(count.kind).where(
        count.deletion_id == Deletion.id,
        count.kind == Deletion.phase,
        count.error_class == FailureClass.TRANSIENT.value,
        ~count.is_skipped,
        count.cause.startswith(TimeoutError.__name__),
    )
    # Not EXISTS, for which PostgreSQL may read all counts once: those of skipped failures stay for good.
    return time_outs.limit(1).scalar_subquery().is_not(None)


def _failures(session: Session) -> Metric:
    return gauge(
        "workspaces_deletion_failures",
        "Resources that are still there although their deletion was tried, by kind and by class of the error. "
        "Those that are skipped do not count.",
        {(kind, error_class): number for kind, error_class, number in session.execute(_open_failures())},
        labels=["kind", "error_class"],
    )


@cache
def _open_failures() -> Select[str, str, int]:
    count, living = DeletionFailureCount, select(Deletion.id).where(is_in(*DELETION_UNFINISHED)).subquery()
    # OFFSET keeps PostgreSQL from joining with all counts.
    some = select(count.kind, count.error_class, count.number).where(
        count.deletion_id == living.c.id, ~count.is_skipped
    )
    of_one = some.offset(0).lateral()
    return (
        select(of_one.c.kind, of_one.c.error_class, func.sum(of_one.c.number))
        .select_from(living)
        .join(of_one, true())
        .group_by(of_one.c.kind, of_one.c.error_class)
    )
