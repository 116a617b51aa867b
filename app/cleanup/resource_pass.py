"""One pass over the resources of one kind: begun and settled one by one, in the order of their ids."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.cleanup import failures, lease, ledger, remaining
from app.cleanup.kinds.base import Deleted, InProgress, Pending, ResourceKind, classify
from app.cleanup.lease import Claim
from app.cleanup.timeout import MOST_UNANSWERED, BegunCall, begin_call, count_unanswered
from app.context import Context
from app.db import session_scope
from app.lifecycle import FailureClass
from app.logs import explain
from app.storage.tree import StoreAbsent

Result = Deleted | Pending | InProgress

_HUNG_AFTER = 2
"""Time-outs in a row. A third may have ended the slice before, of which something went."""


@dataclass(frozen=True)
class DeadlineReached:
    """The slice is out of time; the next one continues behind the cursor."""

    cursor: UUID | None


@dataclass(frozen=True)
class DependencyIsDown:
    """Too many failed in a row, none went in time, or the store is absent: what they share is down or hangs."""

    cursor: UUID | None


@dataclass(frozen=True)
class Exhausted:
    """The pass is over."""


class ResourcePass:
    """A pass over the resources of `kind` in a claimed workspace. Every write passes the claim's fencing token.

    Of a kind that says so, several are deleted at the same time: one at first, and twice as many after each success up
    to the setting, but one again after a failure. They are settled in order, so that the cursor is behind all that is.
    The pass ends at `deadline`, a time of `monotonic()`: what has begun by then is settled. Unless it `is_whole`, that
    it came to nothing by then proves nothing.
    """

    def __init__(
        self,
        context: Context,
        claim: Claim,
        kind: ResourceKind,
        *,
        deadline: float,
        is_whole: bool,
    ) -> None:
        self._context, self._settings, self._claim, self._kind = context, context.settings, claim, kind
        self._deadline, self._is_whole = deadline, is_whole
        # One at a time after a worker was lost: if the next one is lost, too, it is known on which resource.
        is_single = claim.is_takeover or not kind.is_parallel
        self._most_at_once = 1 if is_single else context.settings.filesets_at_once
        self._at_once = 1
        self._transient_in_a_row = 0
        self._is_store_absent = False
        self._time_outs_in_a_row = 0
        self._has_failed = False
        self.has_failures = claim.has_failures
        """Failures of the deletion may be on record."""
        self.removed = 0
        """How many resources were deleted."""
        self.part = ""
        """The part that was deleted last of a resource too large for one slice, for the summary."""

    def run_from(self, cursor: UUID | None) -> DeadlineReached | DependencyIsDown | Exhausted:
        """Try those behind `cursor`. Commits after each. Raises LeaseLost."""
        following, begun = self._following(cursor), deque[tuple[Any, BegunCall[Result]]]()
        is_exhausted = is_late = is_down = False
        while True:
            while not (is_exhausted or is_late or is_down) and self._has_room_beside(len(begun)):
                resource = next(following, None)
                if resource is None:
                    is_exhausted = True
                elif monotonic() >= self._deadline:
                    is_late = True
                else:
                    begun.append((resource, self._begin(resource)))
            if not begun:
                break
            resource, call = begun.popleft()
            self._settle(resource, call.outcome())
            cursor = resource.id
            is_down = is_down or self._is_down
        # Another slice at once would do as little, and keep a worker from others.
        if is_down or (is_late and self._went_nowhere):
            return DependencyIsDown(cursor)
        return Exhausted() if is_exhausted else DeadlineReached(cursor)

    def _has_room_beside(self, begun: int) -> bool:
        """Whether another one may begin. One always may: it fails at once if too many others never answered."""
        return begun == 0 or (
            begun < self._at_once and count_unanswered(self._kind.name) < self._most_unanswered
        )

    @property
    def _most_unanswered(self) -> int:
        return max(MOST_UNANSWERED, self._settings.filesets_at_once)

    @property
    def _is_down(self) -> bool:
        return (
            self._transient_in_a_row >= self._settings.dependency_down_after
            or self._time_outs_in_a_row >= _HUNG_AFTER
            or self._is_store_absent
        )

    @property
    def _went_nowhere(self) -> bool:
        return self._is_whole and self._has_failed and not self.removed and not self.part

    def quarantine_suspect(self, session: Session) -> UUID | None:
        """Leave out, in this pass, the resource on which the last worker vanished; the cursor behind it.

        It may be what kills workers. If several had begun, it may be another one of them: then the next worker, which
        tries one at a time, is lost on that one.
        """
        cursor = self._claim.cursor
        for suspect in self._page(session, cursor, limit=1):
            self._keep_failure(
                session, suspect, FailureClass.TRANSIENT, "the worker was lost while deleting it"
            )
            cursor = suspect.id
        return cursor

    def _following(self, cursor: UUID | None) -> Iterator[Any]:
        while page := self._next_page(cursor):
            yield from page
            cursor = page[-1].id

    def _next_page(self, cursor: UUID | None) -> Any:
        with session_scope(self._context.sessions) as session:
            return self._page(session, cursor, limit=self._settings.page_size)

    def _page(self, session: Session, cursor: UUID | None, *, limit: int) -> Any:
        claim = self._claim
        return remaining.page(session, self._kind, claim.workspace_id, claim.id, after=cursor, limit=limit)

    def _begin(self, resource: Any) -> BegunCall[Result]:
        return begin_call(
            lambda: self._kind.delete(self._context, resource),
            timeout_s=self._settings.item_timeout_seconds,
            dependency=self._kind.name,
            resource_id=resource.id,
            at_once=self._most_unanswered,
        )

    def _settle(self, resource: Any, outcome: Result | Exception) -> None:
        """Write down what became of one resource."""
        with session_scope(self._context.sessions) as session:
            failure = self._judge(session, outcome)
            if failure:
                self._keep_failure(session, resource, *failure)
            elif isinstance(outcome, InProgress):
                self._settle_part(session, resource, outcome.what)
            elif isinstance(outcome, Deleted):
                self._settle_deleted(session, resource, outcome.displaced)

    def _judge(self, session: Session, outcome: Result | Exception) -> tuple[FailureClass, str] | None:
        """Why the resource is still there, or None if it or a part of it was deleted. Counts failures in a row."""
        failure: tuple[FailureClass, str] | None
        match outcome:
            case Deleted() | InProgress():
                failure = None
            case Pending(why):
                failure = self._judge_waiting(session, why)
            case error:
                failure = classify(error), explain(error)
        is_transient = failure is not None and failure[0] is FailureClass.TRANSIENT
        self._has_failed |= is_transient
        self._at_once = 1 if failure else min(2 * self._at_once, self._most_at_once)
        self._transient_in_a_row = self._transient_in_a_row + 1 if is_transient else 0
        is_time_out = isinstance(outcome, TimeoutError)
        self._time_outs_in_a_row = self._time_outs_in_a_row + 1 if is_time_out else 0
        self._is_store_absent = isinstance(outcome, StoreAbsent)
        return failure

    def _settle_deleted(self, session: Session, resource: Any, displaced: str | None) -> None:
        removed = remaining.remove_row(session, self._kind, resource.id)
        ledger.count_deleted(
            session,
            self._claim,
            self._kind.name,
            removed=removed,
            cursor=resource.id,
        )
        self._forget_failure(session, resource)
        if displaced:
            ledger.record_displaced(session, self._claim, name=resource.name, was=displaced)
        self.removed += removed

    def _settle_part(self, session: Session, resource: Any, what: str) -> None:
        ledger.note_part(session, self._claim, cursor=resource.id)
        self._forget_failure(session, resource)
        self.part = f" ({what} of {resource.name} went)"

    def _forget_failure(self, session: Session, resource: Any) -> None:
        if self.has_failures:
            failures.forget(session, self._claim.id, self._kind.name, resource.id)

    def _judge_waiting(self, session: Session, why: str) -> tuple[FailureClass, str]:
        limit_s = self._settings.waiting_limit_seconds
        if lease.seconds_in_phase(session, self._claim) <= limit_s:
            return FailureClass.WAITING, why
        return FailureClass.TRANSIENT, f"{why}; no answer for more than {limit_s:g} s"

    def _keep_failure(self, session: Session, resource: Any, error_class: FailureClass, message: str) -> None:
        self.has_failures = True
        lease.renew(session, self._claim, cursor=resource.id)
        failures.upsert(
            session,
            self._claim.id,
            self._kind.name,
            resource_id=resource.id,
            name=resource.name,
            error_class=error_class,
            message=message,
        )
