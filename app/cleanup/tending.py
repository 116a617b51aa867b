"""What keeps deletions going when nobody rings: sweep, scheduled re-attempts, and the audit for orphans."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app import runtime
from app.cleanup import failures, lease, ledger, remaining
from app.cleanup.kinds.base import explain
from app.context import Context
from app.db import session_scope
from app.dispatch import Message, cleanup_ring
from app.lifecycle import DeletionState
from app.logs import get_logger
from app.models import CleanupControl, Deletion, Workspace
from app.runtime.orphans import find_orphans
from app.services import deployments

log = get_logger(__name__)

_RINGS_PER_SWEEP = 200
"""Enough to fill every worker for a tick; the oldest come first, so the rest have their turn."""


@dataclass(frozen=True)
class Swept:
    """What a sweep found."""

    rang: int
    reattempted: int
    oldest_s: float
    """Age of the oldest unfinished deletion that is due, in seconds."""

    def __str__(self) -> str:
        return f"rang {self.rang}, re-attempted {self.reattempted}, oldest {self.oldest_s:.0f} s"


def sweep(context: Context, *, now: datetime) -> Swept:
    """Ring for everything that is due and that nobody works on, whatever became of its message.

    Also reopens FAILED deletions whose re-attempt has come, ends jobs and deployments whose supervisor has gone
    silent, rings for those that have none, and removes deployments that were DELETED long enough to be seen so.
    Any number of sweeps may run at once.
    """
    with session_scope(context.sessions) as session:
        session.execute(update(CleanupControl).values(last_sweep_at=now))
    with session_scope(context.sessions) as session:
        reattempted = _reattempt_failed(session, now=now)
    with session_scope(context.sessions) as session:
        runtime.mark_lost(session, now=now)
    shown_until = now - timedelta(seconds=context.settings.deleted_deployment_seconds)
    with session_scope(context.sessions) as session:
        deployments.remove_gone(session, until=shown_until)
    quiet = timedelta(seconds=context.settings.ring_again_seconds)
    with session_scope(context.sessions) as session:
        messages, oldest_s = _due(session, now=now, quiet=quiet)
        messages += runtime.unsupervised(session, now=now, quiet=quiet)
    for message in messages:
        context.bell.ring(message)
    return Swept(rang=len(messages), reattempted=reattempted, oldest_s=oldest_s)


def _reattempt_failed(session: Session, *, now: datetime) -> int:
    due = session.scalars(
        select(Deletion.id)
        .where(Deletion.state == DeletionState.FAILED, Deletion.next_reattempt_at <= now)
        .order_by(Deletion.next_reattempt_at)
        .limit(_RINGS_PER_SWEEP)
        .with_for_update(skip_locked=True)  # two sweeps share the work instead of waiting for each other
    ).all()
    for deletion_id in due:
        ledger.reopen(session, deletion_id, event="reattempted", actor=ledger.SWEEP, now=now)
    return len(due)


def _due(session: Session, *, now: datetime, quiet: timedelta) -> tuple[list[Message], float]:
    oldest = session.scalar(
        select(Deletion.requested_at).where(lease.is_due(now)).order_by(Deletion.requested_at).limit(1)
    )
    # Rung for a moment ago: its message waits in the queue, and another would only lengthen the queue.
    not_lately = or_(Deletion.rung_at.is_(None), Deletion.rung_at < now - quiet)
    due = session.scalars(
        select(Deletion)
        .where(lease.is_due(now), not_lately)
        .order_by(Deletion.next_run_at)
        .limit(_RINGS_PER_SWEEP)
        .with_for_update(skip_locked=True)
    ).all()
    messages = []
    for deletion in due:
        ledger.note_rung(session, deletion.id, now=now)
        kind = remaining.first_kind(session, deletion.workspace_id, deletion.id)
        messages.append(
            cleanup_ring(
                deletion.id,
                deletion.workspace_name,
                kind.name if kind else None,
                attempt=deletion.attempts,
            )
        )
    return messages, (now - oldest).total_seconds() if oldest else 0.0


class OrphansFound(Exception):
    """Something is left of workspaces or deployments that no longer exist, or might be."""


def audit(context: Context, *, now: datetime) -> str:
    """Look for stored bytes without a workspace and servers without a deployment, and collect abandoned uploads.

    Rows cannot be orphaned: the foreign keys forbid it. Raises OrphansFound naming what a person must look at;
    what is not known is never deleted.
    """
    limit = now - timedelta(days=context.settings.staging_days)
    collected, troubles = 0, []
    try:
        collected = context.store.collect_staging(limit)
    except OSError as error:  # must not hide what else there is
        troubles.append(f"an abandoned upload could not be collected: {explain(error)}")
    stored = set(context.store.workspace_ids())
    if orphans := _orphaned_bytes(context, stored):
        told = "; ".join(orphans)
        troubles.append(f"{len(orphans)} workspaces are gone but left bytes behind: {told}")
    try:
        if servers := _orphaned_servers(context):
            told = ", ".join(servers)
            troubles.append(f"{len(servers)} servers are in the cluster that no deployment knows of: {told}")
    except Exception as error:  # noqa: BLE001 -- a cluster that is away must not hide what else there is
        troubles.append(f"the cluster could not be looked at: {explain(error)}")
    if troubles:
        log.error("audit.orphans_found", orphans=troubles)
        raise OrphansFound("; ".join(troubles))
    return f"no orphans in {len(stored)} stored workspaces, {collected} abandoned uploads collected"


def _orphaned_bytes(context: Context, stored: set[UUID]) -> list[str]:
    with session_scope(context.sessions) as session:
        known = set(session.scalars(select(Workspace.id).where(Workspace.id.in_(stored))))
        kept = {workspace_id: _retained_filesets(session, workspace_id) for workspace_id in stored - known}
    orphans = []
    for workspace_id, filesets in kept.items():
        try:
            # Not a clean-up: it removes empty directories only, and raises if any unrecorded byte is there.
            context.store.purge_workspace(workspace_id, keep=filesets)
        except Exception as error:  # noqa: BLE001 -- one workspace's trouble must not hide another's
            orphans.append(f"{workspace_id}: {explain(error)}")
    return orphans


def _orphaned_servers(context: Context) -> list[str]:
    with session_scope(context.sessions) as session:
        retained = failures.retained_anywhere(session, "deployments")
    return find_orphans(context, retained=retained)


def _retained_filesets(session: Session, workspace_id: Any) -> set[Any]:
    ids = session.scalars(select(Deletion.id).where(Deletion.workspace_id == workspace_id))
    return {fileset for one in ids for fileset in failures.retained(session, one, "filesets")}
