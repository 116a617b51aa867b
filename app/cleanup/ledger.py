"""The life of a deletion: with `lease`, the only writer of its row.

Each function is one transition: a guarded UPDATE whose row count is looked at, and its event, in the caller's
transaction. A change of state takes its guard from `lifecycle`. Each write of a worker names its fencing token.
"""

import random
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, Integer, Text, bindparam, func, insert, select, update
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from app import lease
from app.cleanup.history import record
from app.cleanup.lease import Claim, is_held, lost, renew, write
from app.clock import database_now, seconds_from_now
from app.config import Settings
from app.deletion_log import FinishedDeletion
from app.errors import WrongState
from app.lease import RELEASED
from app.lifecycle import DeletionMove, DeletionState, WorkspaceMove
from app.models import Deletion, Workspace
from app.models.deletion import Counts
from app.services.workspaces import move_workspace

SWEEP = "sweep"
"""The actor of scheduled re-attempts."""

_NEW_PASS: dict[str, Any] = {"cursor": None, "pass_started_at": database_now(), "has_progressed": False}
"""Column values with which a pass over the resources of a kind begins."""

# --- the request's side -------------------------------------------------------------------------------------


def open_deletion(
    session: Session,
    *,
    workspace: Workspace,
    actor: str,
    grace_s: float,
    reason: str | None = None,
) -> Deletion:
    """Write down that a workspace is to be destroyed once the grace period is over."""
    deletion = session.scalars(
        insert(Deletion)
        .values(
            workspace_id=workspace.id,
            workspace_name=workspace.name,
            workspace_created_at=workspace.created_at,
            requested_by=actor,
            requested_at=database_now(),
            purge_after=seconds_from_now(grace_s),
            next_run_at=seconds_from_now(grace_s),
            request_reason=reason,
        )
        .returning(Deletion)
    ).one()
    why = {"reason": reason} if reason else {}
    record(session, deletion.id, "requested", actor=actor, workspace=workspace.name, **why)
    return deletion


def close_as_restored(session: Session, deletion_id: UUID, *, actor: str, name: str) -> None:
    """The record's side of a restore. Raises WrongState once destruction has begun."""
    _move(
        session,
        DeletionMove.RESTORE,
        Deletion.id == deletion_id,
        Deletion.started_at.is_(None),
        error=WrongState("Destruction has begun or the deletion has ended: it cannot be restored any more."),
        finished_at=database_now(),
        **RELEASED,  # of a worker that has claimed it and not begun
    )
    record(session, deletion_id, "restored", actor=actor, workspace=name)


def lock(session: Session, deletion_id: UUID) -> None:
    """Lock a deletion before its failures, as workers do: in another order, the two could deadlock."""
    row = select(Deletion.id).where(Deletion.id == deletion_id)
    session.execute(row.with_for_update(key_share=True))


def had_failed(as_of: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """SQL: whether the FAILED `Deletion` of the surrounding query has been FAILED since `as_of`, without a break."""
    return Deletion.failed_at <= as_of


def reopen(
    session: Session,
    deletion_id: UUID,
    *,
    event: str,
    actor: str,
    as_of: datetime | None = None,
    **values: Any,
) -> None:
    """Set the workers on it again: due now, with a fresh budget of attempts, and other `values` changed with it.

    A scheduled re-attempt uses up a round; a person's retry starts the rounds anew. Raises WrongState unless FAILED,
    and FAILED since `as_of`, if that is given: then the caller has locked the deletion, so that it does not fail anew.
    """
    since = f", or was not yet at {as_of.isoformat()}" if as_of else ""
    deletion = _move(
        session,
        DeletionMove.REOPEN,
        Deletion.id == deletion_id,
        *([had_failed(as_of)] if as_of else []),
        error=WrongState(
            f"The deletion is not FAILED{since}: only a failed one can be retried, skipped or forced."
        ),
        round=Deletion.round + 1 if actor == SWEEP else 0,
        attempts=0,
        polls=0,
        has_progressed=False,
        phase=None,
        phase_started_at=None,
        pass_started_at=database_now(),
        next_run_at=database_now(),
        next_reattempt_at=None,
        reopened_at=database_now(),
        reason=None,
        last_enqueued_at=None,
        **values,
    )
    _follow(session, WorkspaceMove.REOPEN, deletion.workspace_id)
    record(session, deletion_id, event, actor=actor, round=deletion.round)


def _move(
    session: Session, move: DeletionMove, *which: ColumnElement[bool], error: Exception, **values: Any
) -> Deletion:
    """Change the state of the deletion that `which` describes: the only writer of it. Raises `error`."""
    moved = session.scalars(
        update(Deletion)
        .where(Deletion.state.in_(move.value.before), *which)
        .values(state=move.value.after, **values)
        .returning(Deletion),
        execution_options={"populate_existing": True},
    ).one_or_none()
    if moved is None:
        raise error
    return moved


def _follow(session: Session, move: WorkspaceMove, workspace_id: UUID) -> None:
    if move_workspace(session, move, Workspace.id == workspace_id) is None:
        raise RuntimeError(
            f"workspace {workspace_id} is not in the state of its deletion: it cannot {move.name}"
        )


# --- the worker's side --------------------------------------------------------------------------------------


def begin(session: Session, claim: Claim, phase: str | None, *, counts: Counts) -> Claim:
    """First slice: note what the workspace held, and enter the first phase.

    From here on it cannot be restored.
    """
    with session.no_autoflush:  # its events go together
        record(session, claim.id, "started", actor=claim.owner, held=counts)
        return enter_phase(session, claim, phase, started_at=database_now(), created_counts=counts)


def enter_phase(session: Session, claim: Claim, phase: str | None, **values: Any) -> Claim:
    """Move on to another kind, None when only the workspace row is left. The claim as it is from now on.

    Other `values` of the row are changed with it.
    """
    deletion = write(
        session,
        claim,
        phase=phase,
        phase_started_at=database_now(),
        attempts=0,
        polls=0,
        **_NEW_PASS,
        **values,
    )
    if claim.phase:
        deleted = deletion.deleted_counts.get(claim.phase, 0)
        record(session, claim.id, "phase_finished", actor=claim.owner, kind=claim.phase, deleted=deleted)
    if phase:
        record(session, claim.id, "phase_started", actor=claim.owner, kind=phase)
    return replace(claim, phase=phase, phase_started_at=deletion.phase_started_at, cursor=None)


def count_deleted(
    session: Session,
    claim: Claim,
    kind: str,
    *,
    removed: int,
    cursor: UUID | None = None,
) -> None:
    """Count rows of a kind as deleted, which is progress, and renew the lease."""
    held = {"held_id": claim.id, "token": claim.fence, "owner": claim.owner, "seconds": claim.lease_s}
    counted = {"counted_kind": kind, "removed": removed, "reached": cursor}
    if session.execute(_counting_deleted(), held | counted).scalar_one_or_none() is None:
        raise lost(claim)


def _seconds(span: Any) -> ColumnElement[Any]:
    return func.extract("epoch", span)


_PROGRESS: dict[str, Any] = {
    "has_progressed": True,
    "last_progress_at": database_now(),
    # Of a deletion that an earlier release has begun: as if it had never been FAILED.
    "worked_seconds": func.coalesce(
        Deletion.worked_seconds, _seconds(Deletion.last_progress_at - Deletion.started_at), 0.0
    )
    + _seconds(
        database_now() - func.greatest(Deletion.started_at, Deletion.last_progress_at, Deletion.reopened_at)
    ),
}
"""What is written with each progress."""


@cache
def _counting_deleted() -> ReturningUpdate[UUID]:
    """Made once: to make it anew took longer than all else that Python does for a chunk of a thousand rows."""
    kind = bindparam("counted_kind", type_=Text)
    so_far = func.coalesce(Deletion.deleted_counts[kind].as_integer(), 0)
    number = func.to_jsonb(so_far + bindparam("removed", type_=Integer))
    return (
        update(Deletion)
        .where(
            lease.is_held(Deletion, bindparam("held_id"), bindparam("token")),
            Deletion.lease_owner == bindparam("owner"),
            Deletion.state == DeletionState.DELETING,
        )
        .values(
            lease_until=seconds_from_now(bindparam("seconds")),
            **_PROGRESS,
            cursor=bindparam("reached"),
            deleted_counts=func.jsonb_set(Deletion.deleted_counts, array([kind]), number),
        )
        .returning(Deletion.id)
        .execution_options(synchronize_session=False)
    )


def note_part(session: Session, claim: Claim, *, cursor: UUID) -> None:
    """Note that a part of one resource was deleted: progress, although no row is gone. Renews the lease."""
    renew(session, claim, cursor=cursor, **_PROGRESS)


def record_displaced(session: Session, claim: Claim, *, name: str, was: str) -> None:
    """Put on record what stood in the place of a directory of the store, and was removed as such."""
    record(session, claim.id, "displaced", actor=claim.owner, name=name, was=was)


def next_pass(session: Session, claim: Claim) -> None:
    """Begin another pass after one that made progress, with a fresh budget of attempts."""
    write(session, claim, attempts=0, polls=0, **_NEW_PASS)


def wait(session: Session, claim: Claim, settings: Settings, *, polls: int) -> float:
    """Give the lease back while everything left is stopping; costs no attempt. Seconds until the next poll.

    `polls` counts such polls in a row, this one included.
    """
    delay = min(
        settings.waiting_poll_max_seconds, settings.waiting_poll_min_seconds * 2.0 ** min(polls - 1, 30)
    )
    write(
        session,
        claim,
        polls=polls,
        next_run_at=seconds_from_now(delay),
        **_NEW_PASS,
        **RELEASED,
    )
    return delay


def back_off(
    session: Session,
    claim: Claim,
    settings: Settings,
    *,
    attempts: int,
    reason: str,
    cursor: UUID | None,
) -> float:
    """A pass without success: try again later. Seconds until then; the lease is given back.

    Full jitter: uniform between nothing and the exponential ceiling, so that a crowd does not return in step.
    """
    ceiling = min(settings.backoff_cap_seconds, settings.backoff_base_seconds * 2.0 ** min(attempts, 30))
    delay = random.uniform(0, ceiling)  # noqa: S311 -- jitter, not a secret
    write(
        session,
        claim,
        attempts=attempts,
        polls=0,
        next_run_at=seconds_from_now(delay),
        **(_NEW_PASS if cursor is None else {"cursor": cursor, "has_progressed": False}),
        **RELEASED,
    )
    record(
        session,
        claim.id,
        "backed_off",
        actor=claim.owner,
        attempt=attempts,
        reason=reason,
        retry_in_s=round(delay, 1),
    )
    return delay


def fail(
    session: Session,
    claim: Claim,
    settings: Settings,
    *,
    reason: str,
    is_permanent: bool,
    attempts: int,
) -> datetime | None:
    """Give up until a person reopens it, or the schedule: but not what would fail in the same way for a week.

    When the schedule will, or None.
    """
    delay = None if is_permanent else settings.reattempt_delay(claim.round)
    deletion = _move(
        session,
        DeletionMove.FAIL,
        is_held(claim),
        error=lost(claim),
        reason=reason,
        attempts=attempts,
        cursor=None,
        next_reattempt_at=seconds_from_now(delay.total_seconds()) if delay else None,
        **RELEASED,
    )
    _follow(session, WorkspaceMove.FAIL, claim.workspace_id)
    record(
        session,
        claim.id,
        "failed",
        actor=claim.owner,
        reason=reason,
        next_reattempt_at=due_at.isoformat() if (due_at := deletion.next_reattempt_at) else None,
    )
    return deletion.next_reattempt_at


def finished_deletion(session: Session, claim: Claim) -> FinishedDeletion:
    """What the deletion log is to know of the claimed deletion, as if it ended now."""
    query = select(Deletion.requested_at, database_now()).where(Deletion.id == claim.id)
    requested_at, now = session.execute(query).one()
    return FinishedDeletion(claim.id, claim.workspace_id, requested_at, now)


def finish(session: Session, claim: Claim) -> Deletion:
    """Close the record in the transaction that removes the workspace row.

    The deletion log has it already: a backup that does not know of it would bring the workspace back.
    The caller's commit fails with a foreign key violation if anything is left after all.
    """
    deletion = _move(
        session,
        DeletionMove.FINISH,
        is_held(claim),
        error=lost(claim),
        phase=None,
        finished_at=database_now(),
        **RELEASED,
    )
    _follow(session, WorkspaceMove.REMOVE, claim.workspace_id)
    record(session, claim.id, "finished", actor=claim.owner, deleted=deletion.deleted_counts)
    return deletion


def note_enqueued(session: Session, deletion_id: UUID) -> None:
    """Note that the sweep has enqueued a message, so that it enqueues no other for the requeue interval."""
    session.execute(
        update(Deletion).where(Deletion.id == deletion_id).values(last_enqueued_at=database_now())
    )
