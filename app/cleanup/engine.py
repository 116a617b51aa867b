"""One slice of a deletion: claim it, clean what is left kind by kind, yield at the deadline.

What is left to do is read from the tables each time, never remembered: a slice that starts after any crash
finds its place by itself.
"""

from collections.abc import Set
from dataclasses import replace
from time import monotonic
from uuid import UUID

from sqlalchemy.exc import IntegrityError, OperationalError
from structlog.contextvars import bind_contextvars, get_contextvars, unbind_contextvars

from app.cleanup import failures, history, lease, ledger, operations, remaining
from app.cleanup.kinds import ORDER
from app.cleanup.kinds.base import Kind, ResourceKind, RowsKind, classify
from app.cleanup.lease import Claim
from app.cleanup.outcomes import Advanced, Failed, Finished, Idle, Outcome, Postponed
from app.cleanup.resource_pass import DeadlineReached, DependencyIsDown, Exhausted, ResourcePass
from app.cleanup.timeout import call_with_timeout
from app.context import Context
from app.db import read, session_scope
from app.dispatch import cleanup_message
from app.lease import LeaseLost
from app.lifecycle import FailureClass
from app.logs import explain, get_logger
from app.tracing import span

log = get_logger(__name__)

WORKSPACE = "workspace"
"""What failures of the last step are filed under, when every kind is empty."""

_SHARED_PART = 0.05
"""The part of a slice in which it goes on with the next kind. What takes longer gets a task with its own name."""


class WorkerLost(Exception):
    """The last worker vanished without giving its lease back."""


def run_slice(
    context: Context,
    deletion_id: UUID | None = None,
    *,
    owner: str,
) -> Outcome:
    """Work on one due deletion for at most the slice's time.

    It cleans one kind after another as long as they take no time, and then yields to a task that bears the name of the
    kind that does.

    It is the one with that id if the turn is its requester's, and else one of the requester whose turn it is.
    Safe to call at any time by anybody: only the holder of the lease gets beyond the first transaction.
    Commits as it goes. Raises SQLAlchemy's OperationalError when the database goes away.
    """
    lease_s = context.settings.lease_seconds
    with session_scope(context.sessions) as session:
        claim = lease.claim(session, owner=owner, lease_s=lease_s, deletion_id=deletion_id)
        if claim is None:
            return Idle(remaining.why_idle(session, deletion_id))
    _name_in_log(claim)
    try:
        return _Slice(context, claim).run()
    except LeaseLost as lost:
        log.warning("cleanup.lease_lost", deletion_id=str(claim.id), owner=owner, fence=claim.fence)
        return Idle(str(lost))


def _name_in_log(claim: Claim) -> None:
    """Let each line be about the claimed deletion, which need not be the one that the message names."""
    deletion_id = str(claim.id)
    if get_contextvars().get("deletion_id", deletion_id) != deletion_id:
        bind_contextvars(workspace=claim.workspace_name, deletion_id=deletion_id)
        unbind_contextvars("request_id")


class _Slice:
    """The work on one claim. Every write to the database passes the claim's fencing token."""

    def __init__(self, context: Context, claim: Claim) -> None:
        self._context = context
        self._settings = context.settings
        self._claim = claim
        began = monotonic()
        self._deadline = began + self._settings.slice_seconds
        self._shared_until = began + self._settings.slice_seconds * _SHARED_PART
        self._kind_deadline = self._deadline
        """When the kind that is being cleaned has had its time: before the others' end, all but the first."""
        self._cleaned: list[str] = []
        """What was done of each kind, for the summary."""
        self._removed = 0
        self._part = ""

    def run(self) -> Outcome:
        try:
            if unfinished := self._carry_out_force():
                return unfinished
            while True:
                if outcome := self._clean_in_span(self._enter()):
                    return outcome
                self._claim = replace(self._claim, is_first=False, is_takeover=False)
                self._kind_deadline = self._shared_until
                self._removed, self._part = 0, ""
        except LeaseLost:
            raise
        except (OperationalError, IntegrityError, OSError) as error:
            return self._whole_kind_failed(error)  # told with the outcome
        except Exception as error:
            workspace = self._claim.workspace_name
            log.warning(
                "cleanup.slice_failed", deletion_id=str(self._claim.id), workspace=workspace, exc_info=error
            )
            return self._whole_kind_failed(error)

    @property
    def _phase(self) -> str:
        return self._claim.phase or WORKSPACE

    def _clean_in_span(self, kind: Kind | None) -> Outcome | None:
        with span(f"clean {kind.name}" if kind else "finalize") as facts:
            # Not always that of the task: the turn may be another requester's.
            facts["deletion_id"] = str(self._claim.id)
            outcome = self._clean(kind)
            facts["deleted"] = self._removed
            return outcome

    def _clean(self, kind: Kind | None) -> Outcome | None:
        """How the slice ends; None if `kind` is empty and there is time for the next."""
        if self._claim.is_takeover and not isinstance(kind, ResourceKind):
            # Counted, or a step that kills its worker would be tried for ever.
            return self._whole_kind_failed(WorkerLost("the worker was lost in this phase"))
        match kind:
            case RowsKind():
                return self._clean_rows(kind)
            case ResourceKind():
                return self._clean_resources(kind)
            case None:
                return self._finish()

    def _carry_out_force(self) -> Outcome | None:
        """Mark what an administrator has given up as retained; the outcome if the slice is too short for all of it."""
        while self._claim.is_forced:
            with session_scope(self._context.sessions) as session:
                if not operations.carry_out_force(session, self._claim, limit=self._settings.chunk_size):
                    break
            if monotonic() >= self._deadline:
                return self._yield_between_kinds("skipping what was forced")
        return None

    def _enter(self) -> Kind | None:
        """The kind to clean now, noted in the ledger if it is another than before."""
        claim = self._claim
        with session_scope(self._context.sessions) as session:
            kind = remaining.first_kind(session, claim.workspace_id, claim.id)
            name = kind.name if kind else None
            if claim.is_first:
                held = remaining.count_by_kind(session, [claim.workspace_id])
                claim = ledger.begin(session, claim, name, counts=held[claim.workspace_id])
                history.notify_receivers(session, self._context.publisher)
            elif name != claim.phase or claim.phase_started_at is None:
                emptied = claim.phase
                claim = ledger.enter_phase(session, claim, name)
                if emptied and claim.has_failures:
                    failures.forget_kind(session, claim.id, emptied)
            elif claim.is_takeover and isinstance(kind, ResourceKind):
                cursor = self._pass(claim, kind).quarantine_suspect(session)
                claim = replace(claim, cursor=cursor, has_failures=True)
        self._claim = claim
        return kind

    def _pass(self, claim: Claim, kind: ResourceKind) -> ResourcePass:
        is_whole = self._kind_deadline == self._deadline
        return ResourcePass(self._context, claim, kind, deadline=self._kind_deadline, is_whole=is_whole)

    # --- kinds that are only rows -----------------------------------------------------------------------

    def _clean_rows(self, kind: RowsKind) -> Outcome | None:
        claim, cursor, limit = self._claim, self._claim.cursor, self._settings.chunk_size
        while monotonic() < self._kind_deadline:
            with session_scope(self._context.sessions) as session:
                chunk = kind.delete_chunk(session, claim.workspace_id, limit, cursor)
                if chunk.removed:
                    ledger.count_deleted(
                        session, claim, kind.name, removed=chunk.removed, cursor=chunk.cursor
                    )
                    if claim.has_failures and not self._removed:
                        failures.forget_kind(session, claim.id, kind.name)
                # Behind a full chunk the question would pass over all that is gone, as would a search from the start.
                is_left = chunk.removed == limit or remaining.has_rows(session, kind, claim.workspace_id)
            self._removed += chunk.removed
            if not is_left:
                return self._end_kind(kind)
            if not chunk.removed and cursor is None:
                raise RuntimeError(f"none of the {kind.name} that are left could be removed")
            # None where nothing more was found: once more from the start, for what was passed over.
            cursor = chunk.cursor
        return self._yield(kind, cursor)

    # --- kinds with something outside the database ------------------------------------------------------

    def _clean_resources(self, kind: ResourceKind) -> Outcome | None:
        resource_pass, cursor = self._pass(self._claim, kind), self._claim.cursor
        while True:
            ended = resource_pass.run_from(cursor)
            self._removed, self._part = resource_pass.removed, resource_pass.part
            self._claim = replace(self._claim, has_failures=resource_pass.has_failures)
            match ended:
                case DeadlineReached(cursor):
                    return self._yield(kind, cursor)
                case DependencyIsDown(cursor):
                    # The cursor stays: otherwise a few bad resources at the front would keep the good ones behind
                    # them from ever being tried.
                    return self._without_progress(cursor)
                case Exhausted():
                    if self._is_over(kind):
                        return self._end_kind(kind)
                    if outcome := self._end_pass(kind):
                        return outcome
                    cursor = None

    # --- how a slice ends -------------------------------------------------------------------------------

    def _is_over(self, kind: Kind) -> bool:
        with session_scope(self._context.sessions) as session:
            return not remaining.has_rows(session, kind, self._claim.workspace_id, self._claim.id)

    def _end_pass(self, kind: ResourceKind) -> Outcome | None:
        """Close a pass that has tried every resource left. None: the pass made progress, so another follows."""
        claim = self._claim
        with session_scope(self._context.sessions) as session:
            deletion = lease.renew(session, claim)
            since = deletion.pass_started_at
            failures.forget_unseen(session, claim.id, kind.name, since=since)
            left = failures.open_by_class(session, claim.id, kind.name, since=since)
            if deletion.has_progressed:
                ledger.next_pass(session, claim)
                return None
            if left[FailureClass.WAITING] and not left[FailureClass.TRANSIENT]:
                worst = failures.worst(session, claim.id, kind.name, since=since)
                delay = ledger.wait(session, claim, self._settings, polls=deletion.polls + 1)
                return Postponed(worst, 0, delay, claim, self._before)
        return self._without_progress(None)

    def _without_progress(self, cursor: UUID | None, kind: str | None = None) -> Outcome:
        """Count an attempt unless the pass made progress, and back off or make the deletion FAILED."""
        kind = kind or self._phase
        claim, settings = self._claim, self._settings
        with session_scope(self._context.sessions) as session:
            deletion = lease.renew(session, claim, cursor=cursor)
            attempts = 0 if deletion.has_progressed else deletion.attempts + 1
            since = deletion.pass_started_at
            left = failures.open_by_class(session, claim.id, kind, since=since)
            worst = failures.worst(session, claim.id, kind, since=since)
            is_permanent = set(left) == {FailureClass.PERMANENT}
            if is_permanent or attempts >= settings.max_attempts:
                why = "it will not go away by itself" if is_permanent else f"no progress in {attempts} passes"
                reason = f"{worst}; {why}"
                reattempt_at = ledger.fail(
                    session,
                    claim,
                    settings,
                    reason=reason,
                    is_permanent=is_permanent,
                    attempts=attempts,
                )
                history.notify_receivers(session, self._context.publisher)
                where = self._context.store.located(claim.workspace_id, reason)
                history.log_failed(claim.id, claim.workspace_name, reason=where, reattempt_at=reattempt_at)
                return Failed(reason, claim, self._before)
            delay = ledger.back_off(session, claim, settings, attempts=attempts, reason=worst, cursor=cursor)
            return Postponed(worst, attempts, delay, claim, self._before)

    def _whole_kind_failed(self, error: Exception, kind: str | None = None) -> Outcome:
        claim = self._claim
        with session_scope(self._context.sessions) as session:
            lease.renew(session, claim)
            failures.upsert(
                session,
                claim.id,
                kind or self._phase,
                resource_id=None,
                name=failures.WHOLE_KIND,
                error_class=classify(error),
                message=explain(error),
            )
        return self._without_progress(None, kind)

    def _end_kind(self, kind: Kind) -> Advanced | None:
        """Hand over to the task of the next kind; None if there is time for that in this one."""
        if monotonic() >= self._shared_until:
            return self._yield(kind)
        self._cleaned.append(self._summary(kind, left=0))
        return None

    def _yield(self, kind: Kind, cursor: UUID | None = None) -> Advanced:
        """Give the lease back and enqueue the next slice at the end of the queue: other tenants wait too."""
        claim = self._claim
        with session_scope(self._context.sessions) as session:
            following = remaining.first_kind(session, claim.workspace_id, claim.id)
            released = lease.release(session, claim, cursor=cursor)
            left = remaining.reckon(released, kind) if following is kind else 0
        phase = following.name if following else None
        self._context.publisher.publish(cleanup_message(claim.id, claim.workspace_name, phase))
        self._cleaned.append(self._summary(kind, left=left))
        return Advanced(f"{claim.workspace_name} {self._before}")

    def _summary(self, kind: Kind, *, left: int) -> str:
        return f"{kind.name}: {self._removed} deleted, {left} left{self._part}"

    @property
    def _before(self) -> str:
        return "; ".join(self._cleaned)

    def _yield_between_kinds(self, doing: str) -> Advanced:
        claim = self._claim
        with session_scope(self._context.sessions) as session:
            lease.release(session, claim, cursor=None)
        self._context.publisher.publish(cleanup_message(claim.id, claim.workspace_name, claim.phase))
        return Advanced(f"{claim.workspace_name}: {doing}")

    def _purge_rest(self, kept: Set[UUID]) -> str | None:
        """Purge the store of what no fileset accounts for; what stood in the place of the workspace's directory."""
        store, workspace_id = self._context.store, self._claim.workspace_id
        displaced = store.remove_displaced(workspace_id)
        store.purge_workspace(workspace_id, keep=kept)
        return displaced

    def _log_deletion(self) -> Exception | None:
        """Record outside the database that the deletion ends, before it does. Why that failed."""
        finished = read(
            self._context.sessions, lambda session: ledger.finished_deletion(session, self._claim)
        )
        return call_with_timeout(
            lambda: self._context.deletion_log.append(finished),
            timeout_s=self._settings.item_timeout_seconds,
            dependency="deletion log",
            resource_id=self._claim.workspace_id,
        )

    def _finish(self) -> Outcome:
        """Every kind is empty or retained: let the database prove it by dropping the workspace row."""
        claim = self._claim
        kept: Set[UUID] = set()
        retained: Set[str] = set()
        if claim.has_failures:
            with session_scope(self._context.sessions) as session:
                retained = failures.retained_kinds(session, claim.id)
                kept = failures.retained(session, claim.id, "filesets")
        displaced = None
        if failures.STORE not in retained:
            outcome = call_with_timeout(
                lambda: self._purge_rest(kept),
                timeout_s=self._deadline - monotonic(),
                dependency="filesets",
                resource_id=claim.workspace_id,
            )
            if isinstance(outcome, Exception):  # filed as its own, because a person may give up on it
                return self._whole_kind_failed(outcome, failures.STORE)
            displaced = outcome
        if error := self._log_deletion():
            return self._whole_kind_failed(error, failures.DELETION_LOG)
        while (totals := self._remove_workspace(displaced, retained)) is None:
            if monotonic() >= self._deadline:
                return self._yield_between_kinds("removing the rows of what is retained")
        counts = ", ".join(f"{kind.name} {totals[kind.name]}" for kind in ORDER if kind.name in totals)
        return Finished(f"{claim.workspace_name} is gone: {counts or 'it was empty'}")

    def _remove_workspace(self, displaced: str | None, retained: Set[str]) -> dict[str, int] | None:
        """Remove the rows of what is retained, up to a chunk, and if that was all the workspace row: the totals."""
        claim, limit = self._claim, self._settings.chunk_size
        with session_scope(self._context.sessions) as session:
            if retained:
                lease.renew(session, claim)
                kinds = [kind.name for kind in ORDER if kind.name in retained]
                removed = remaining.remove_retained_rows(
                    session, claim.workspace_id, claim.id, kinds, limit=limit
                )
                if removed == limit:
                    return None
            if displaced:
                ledger.record_displaced(session, claim, name=claim.workspace_name, was=displaced)
            if claim.has_failures:
                failures.forget_all(session, claim.id)
            finished = ledger.finish(session, claim)
            history.notify_receivers(session, self._context.publisher)
            return finished.deleted_counts
