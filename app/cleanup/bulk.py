"""Retry, skip and force of many FAILED deletions by their cause, and of none that was not FAILED at the look."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, partial
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    DateTime,
    Select,
    Text,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.orm import Session

from app.access.authorize import Actor, require_platform_wide
from app.access.permissions import Permission
from app.cleanup import failures, ledger, operations
from app.clock import database_now
from app.context import Context
from app.db import read, transact
from app.errors import BadRequest
from app.lifecycle import DeletionState, FailureClass
from app.models import Deletion, DeletionFailureCount
from app.models.deletion import is_in

MOST_DELETIONS = 100
"""Of one call. Each is a transaction; who asked is waiting."""

MOST_SKIPPED = 1000
"""Resources that one call gives up: as many as a chunk has, since their failures change in one transaction."""

_TIME_S = 5.0
"""After which a call begins with no other deletion, and says what is left."""


@dataclass(frozen=True)
class Selection:
    """Some FAILED deletions: those with a failure that is not skipped and of this kind, class and cause.

    None is any. The cause of a deletion without such failures is its `reason`, and it has neither kind nor class.
    """

    as_of: datetime
    """The time of the look. A deletion that has not been FAILED since then without a break is never among them."""
    kind: str | None = None
    error_class: FailureClass | None = None
    cause: str | None = None

    def is_alike(self) -> ColumnElement[bool]:
        """SQL: whether the `Deletion` of the surrounding query is FAILED for this, whenever it failed."""
        return and_(is_in(DeletionState.FAILED), is_alike(self.kind, self.error_class, self.cause))

    def is_among(self) -> ColumnElement[bool]:
        """SQL: whether it is one of them."""
        return and_(self.is_alike(), ledger.had_failed(self.as_of))


@dataclass(frozen=True)
class Matching:
    """How many deletions are FAILED for the same now, and how many of them were at the look."""

    now: int
    then: int


@dataclass(frozen=True)
class Done:
    """What came of a call for many deletions."""

    asked: int
    """Deletions with which it was done."""
    left_alone: int
    """Deletions that were no longer as they were at the look when their turn came, or have nothing to give up."""
    left: int
    """Deletions for which there was no time. The same call goes on with them."""
    skipped: int = 0
    """Resources that `skip_all` has given up, also those of a deletion that is among `left` because it has more."""


@dataclass(frozen=True)
class _Step:
    """What was done with one deletion: whether that was all, and how many resources of it were given up."""

    is_over: bool = True
    skipped: int = 0


_Act = Callable[[Session, Deletion, int], _Step]
"""Does it with a deletion that is locked, and gives up that many resources at most."""


def matching(session: Session, selection: Selection) -> Matching:
    """Count what a selection is about, and what it would be about if the look were now."""
    asked = {"kind": selection.kind, "error_class": selection.error_class, "cause": selection.cause}
    given = {f"asked_{name}": value for name, value in asked.items() if value is not None}
    parameters = {**given, "asked_as_of": selection.as_of}
    return Matching(*session.connection().execute(_matching(frozenset(given)), parameters).one())


@cache
def _matching(given: frozenset[str]) -> Select[int, int]:
    asked: list[Any] = [
        bindparam(name, type_=Text) if name in given else None
        for name in ("asked_kind", "asked_error_class", "asked_cause")
    ]
    then = func.count().filter(ledger.had_failed(bindparam("asked_as_of", type_=DateTime(timezone=True))))
    alike = and_(is_in(DeletionState.FAILED), is_alike(*asked))
    return select(func.count(), then).select_from(Deletion).where(alike)


def retry_all(context: Context, actor: Actor, selection: Selection, *, at_most: int = MOST_DELETIONS) -> Done:
    """Retry up to `at_most` of the deletions, in the order of their requests.

    Each has a transaction of its own, in which it is looked at again under its lock: what is no longer as it was at
    the look is left alone. Commits. Raises Forbidden unless the actor may operate deletions, also in the middle.
    """

    def act(session: Session, deletion: Deletion, _: int) -> _Step:
        operations.retry(session, context, actor, deletion, as_of=selection.as_of)
        return _Step()

    return _do_with_each(context, actor, selection, act, at_most=at_most)


def force_all(
    context: Context, actor: Actor, selection: Selection, *, reason: str, at_most: int = MOST_DELETIONS
) -> Done:
    """Give up on all that fails now of up to `at_most` of the deletions, whatever it fails for. As `retry_all`."""

    def act(session: Session, deletion: Deletion, _: int) -> _Step:
        operations.force(session, context, actor, deletion, reason=reason, as_of=selection.as_of)
        return _Step()

    return _do_with_each(context, actor, selection, act, at_most=at_most, has_open=True)


def skip_all(
    context: Context, actor: Actor, selection: Selection, *, reason: str, at_most: int = MOST_DELETIONS
) -> Done:
    """Give up on the resources that fail for this, of up to `at_most` of the deletions, and go on with the rest.

    A deletion with more of them than a call gives up stays FAILED, and is left for the next call. As `retry_all`.
    Raises BadRequest without a kind or a cause: that is `force_all`.
    """
    if selection.kind is None and selection.cause is None:
        raise BadRequest(
            "Name the kind or the cause of what is to be skipped; to give up everything, use force."
        )

    def act(session: Session, deletion: Deletion, limit: int) -> _Step:
        which = failures.alike(kind=selection.kind, error_class=selection.error_class, cause=selection.cause)
        skipped = operations.skip_alike(
            session, context, actor, deletion, which, reason=reason, cause=selection.cause, limit=limit
        )
        return _Step(deletion.state is not DeletionState.FAILED, skipped)

    return _do_with_each(context, actor, selection, act, at_most=at_most, has_open=True)


def _do_with_each(
    context: Context, actor: Actor, selection: Selection, act: _Act, *, at_most: int, has_open: bool = False
) -> Done:
    """Do it with one deletion after the other; with `has_open`, only with those of which something fails."""
    deadline = monotonic() + _TIME_S
    operator = replace(actor, permission=Permission.DELETIONS_OPERATE)
    seen = read(context.sessions, partial(_of_the_past, actor=operator, selection=selection)).is_among()
    which = and_(seen, _has_open()) if has_open else seen
    asked = left_alone = skipped = 0
    for deletion_id in read(context.sessions, partial(_first, which=which, at_most=at_most)):
        if monotonic() >= deadline or skipped >= MOST_SKIPPED:
            break
        rest = MOST_SKIPPED - skipped
        do = partial(_do, actor=operator, deletion_id=deletion_id, which=which, act=act, limit=rest)
        step = transact(context.sessions, do)
        if step is None:
            left_alone += 1
        else:
            asked += step.is_over
            skipped += step.skipped
    left = read(context.sessions, partial(_count, which=which))
    without = read(context.sessions, partial(_count, which=and_(seen, ~_has_open()))) if has_open else 0
    return Done(asked, left_alone + without, left, skipped)


def _of_the_past(session: Session, *, actor: Actor, selection: Selection) -> Selection:
    """The selection; if its look is to come, the same as of now, since nobody can have seen more."""
    require_platform_wide(session, actor)
    now = session.scalars(select(database_now())).one()
    return replace(selection, as_of=min(selection.as_of, now))


def _first(session: Session, *, which: ColumnElement[bool], at_most: int) -> Sequence[UUID]:
    in_order = select(Deletion.id).where(which).order_by(Deletion.requested_at, Deletion.id)
    return session.scalars(in_order.limit(at_most)).all()


def _do(
    session: Session, *, actor: Actor, deletion_id: UUID, which: ColumnElement[bool], act: _Act, limit: int
) -> _Step | None:
    """What was done with a deletion; None if it is no longer among those that the call is about."""
    require_platform_wide(session, actor)
    ledger.lock(session, deletion_id)
    # A statement of its own: that of the lock may have waited, and sees events and failures as they were before.
    deletion = session.scalars(select(Deletion).where(Deletion.id == deletion_id, which)).one_or_none()
    return act(session, deletion, limit) if deletion else None


def _count(session: Session, *, which: ColumnElement[bool]) -> int:
    return session.scalars(select(func.count()).select_from(Deletion).where(which)).one()


def is_alike(
    kind: str | BindParameter[str] | None,
    error_class: FailureClass | BindParameter[FailureClass] | None,
    cause: str | BindParameter[str] | None,
) -> ColumnElement[bool]:
    """SQL: whether the FAILED `Deletion` of the surrounding query is so for this; None is any."""
    asked = {"kind": kind, "error_class": error_class, "cause": cause}
    given = {name: value for name, value in asked.items() if value is not None}
    if not given:
        return true()
    if set(given) != {"cause"}:
        return _has_open(**given)
    by_reason = func.coalesce(Deletion.reason, "") == cause
    return or_(_has_open(**given), and_(by_reason, ~_has_open()))


def _has_open(**alike: str | BindParameter[Any]) -> ColumnElement[bool]:
    """SQL: whether the `Deletion` of the surrounding query has such failures that are not skipped."""
    count = DeletionFailureCount
    some = select(count.number).where(count.deletion_id == Deletion.id, ~count.is_skipped, count.number > 0)
    # OFFSET keeps PostgreSQL from joining with all counts: those of skipped failures stay for good.
    return some.filter_by(**alike).offset(literal_column("0")).exists()
