"""The daily search for what deleted workspaces and deployments left behind."""

import time
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from math import inf
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, any_, cast, exists, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app import clock
from app.cleanup import failures
from app.cleanup.timeout import call_with_timeout
from app.clock import database_now, seconds_from_now
from app.context import Context
from app.db import session_scope
from app.logs import explain, get_logger
from app.models import Deletion, OrphanScan, Workspace
from app.runtime.deployments.backends.kubernetes.orphans import find_orphans

log = get_logger(__name__)

SLICE_S = 20.0
"""How long one task scans; the next one goes on."""

_BATCH = 1000
"""Workspaces that the database is asked about at once."""

_MOST_NAMED = 100
"""Orphans that a scan names; it counts the others."""

_CLAIM_MARGIN_S = 5.0
"""How long after a task must be dead another one may go on."""


class OrphansFound(Exception):
    """Something is left of workspaces or deployments that no longer exist, or might be."""


@dataclass
class Scan:
    """How far a scan has come, and what it has found. Kept as JSON between two slices."""

    collected: int = 0
    has_collected: bool = False
    """Whether the abandoned uploads have been looked for."""
    stored: int = 0
    last: str = ""
    """The last workspace that was looked for, in the order of their ids."""
    orphaned: int = 0
    orphans: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.stored} stored workspaces, {self.collected} abandoned uploads collected"


def scan_for_orphans(context: Context) -> str:
    """Look for stored bytes without a workspace and servers without a deployment, and collect abandoned uploads.

    Rows cannot be orphaned: the foreign keys forbid it. Raises OrphansFound naming what a person must look at;
    what is not known is never deleted.
    """
    scan = Scan()
    _search_store(context, scan, within_s=inf)
    conclusion = _conclude(context, scan)
    with session_scope(context.sessions) as session:
        result = {"finished_at": database_now(), "found": conclusion.found}
        noted = insert(OrphanScan).values(id=1, progress=None, **result)
        session.execute(noted.on_conflict_do_update(index_elements=["id"], set_=result))
    return _report(scan, conclusion)


def run_slice(context: Context) -> str:
    """Go on with the scan that is under way, or begin one, for about `SLICE_S` seconds; returns what came of it.

    Commits how far it came; the sweep enqueues the next slice. The last one raises OrphansFound, as `scan_for_orphans`
    does. An error of the store ends the scan, whereas a process that dies only repeats its slice.
    """
    scan = _claim(context)
    if scan is None:
        return "another process scans"
    try:
        is_complete = _search_store(context, scan, within_s=SLICE_S)
    except BaseException:
        _release(context, progress=None)
        raise
    if not is_complete:
        _release(context, progress=asdict(scan))
        return f"{scan} so far"
    conclusion = _conclude(context, scan)
    _release(context, progress=None, finished_at=database_now(), found=conclusion.found)
    return _report(scan, conclusion)


def is_due(context: Context) -> bool:
    """Whether a scan is under way, or none was completed within the interval of the settings."""
    a_while_ago = seconds_from_now(-context.settings.orphan_scan_seconds)
    with session_scope(context.sessions) as session:
        return not session.scalar(
            select(exists().where(OrphanScan.progress.is_(None), OrphanScan.finished_at > a_while_ago))
        )


def is_to_go_on(session: Session) -> bool:
    """Whether a scan is under way and no process is at it."""
    return session.scalars(select(exists().where(OrphanScan.progress.is_not(None), _is_free()))).one()


def _is_free() -> ColumnElement[bool]:
    return or_(OrphanScan.busy_until.is_(None), OrphanScan.busy_until <= database_now())


def _claim(context: Context) -> Scan | None:
    """The scan that is under way, or a new one; None while another process is at it."""
    busy_until = seconds_from_now(context.settings.task_hard_limit_seconds + _CLAIM_MARGIN_S)
    with session_scope(context.sessions) as session:
        session.execute(insert(OrphanScan).values(id=1, progress=None).on_conflict_do_nothing())
        claimed = session.scalars(
            update(OrphanScan).where(_is_free()).values(busy_until=busy_until).returning(OrphanScan)
        ).one_or_none()
    return Scan(**(claimed.progress or {})) if claimed else None


def _release(context: Context, **values: Any) -> None:
    with session_scope(context.sessions) as session:
        session.execute(update(OrphanScan).values(busy_until=None, **values))


def _search_store(context: Context, scan: Scan, *, within_s: float) -> bool:
    """Go on until all stored workspaces were looked for (True) or the time is over, by one of them at least."""
    deadline = time.monotonic() + within_s
    if not scan.has_collected:
        _collect_uploads(context, scan, within_s)
    if not scan.has_collected:
        return False
    stored = sorted(one for one in context.store.workspace_ids() if str(one) > scan.last)
    for start in range(0, len(stored), _BATCH):
        batch = stored[start : start + _BATCH]
        known = _known(context, batch)
        for workspace_id in batch:
            if workspace_id not in known:
                _look_for_bytes(context, scan, workspace_id)
            scan.stored, scan.last = scan.stored + 1, str(workspace_id)
            if time.monotonic() >= deadline:
                return False
    return True


def _collect_uploads(context: Context, scan: Scan, within_s: float) -> None:
    limit = clock.now() - timedelta(days=context.settings.staged_upload_days)
    try:
        collected, scan.has_collected = context.store.collect_staged_uploads(limit, within_s=within_s)
        scan.collected += collected
    except OSError as error:  # must not hide what else there is
        scan.troubles.append(f"an abandoned upload could not be collected: {explain(error)}")
        scan.has_collected = True


def _known(context: Context, stored: list[UUID]) -> set[UUID]:
    with session_scope(context.sessions) as session:
        return set(
            session.scalars(select(Workspace.id).where(Workspace.id == any_(cast(stored, ARRAY(Uuid)))))
        )


def _look_for_bytes(context: Context, scan: Scan, workspace_id: UUID) -> None:
    with session_scope(context.sessions) as session:
        kept = _retained_filesets(session, workspace_id)
    # Not a clean-up: it removes empty directories only, and raises if any unrecorded byte is there.
    error = call_with_timeout(
        lambda: context.store.purge_workspace(workspace_id, keep=kept),
        timeout_s=context.settings.item_timeout_seconds,
        dependency="store",
        resource_id=workspace_id,
    )
    if error is not None:  # one workspace's trouble must not hide another's
        scan.orphaned += 1
        if len(scan.orphans) < _MOST_NAMED:
            scan.orphans.append(f"{workspace_id}: {explain(error)}")


@dataclass(frozen=True)
class _Conclusion:
    """What a person must look at, and how many orphans there are of each sort that could be looked for."""

    troubles: list[str]
    found: dict[str, int]


def _conclude(context: Context, scan: Scan) -> _Conclusion:
    """What the scan has come to; looks into the cluster last. Raises nothing."""
    troubles, found = list(scan.troubles), {"bytes": scan.orphaned}
    if scan.orphaned:
        others = scan.orphaned - len(scan.orphans)
        named = "; ".join([*scan.orphans, *([f"and {others} others"] if others else [])])
        troubles.append(f"{scan.orphaned} workspaces are gone but left bytes behind: {named}")
    try:
        servers = _orphaned_servers(context)
        found["servers"] = len(servers)
        if servers:
            named = ", ".join(servers)
            troubles.append(f"{len(servers)} servers in the cluster belong to no deployment: {named}")
    except Exception as error:  # noqa: BLE001 -- a cluster that is away must not hide what else there is
        troubles.append(f"the cluster could not be looked at: {explain(error)}")
    return _Conclusion(troubles, found)


def _report(scan: Scan, conclusion: _Conclusion) -> str:
    if conclusion.troubles:
        log.error("orphan_scan.orphans_found", orphans=conclusion.troubles)
        raise OrphansFound("; ".join(conclusion.troubles))
    return f"no orphans in {scan}"


def _orphaned_servers(context: Context) -> list[str]:
    with session_scope(context.sessions) as session:
        retained = failures.retained_anywhere(session, "deployments")
    return find_orphans(context, retained=retained)


def _retained_filesets(session: Session, workspace_id: Any) -> set[Any]:
    ids = session.scalars(select(Deletion.id).where(Deletion.workspace_id == workspace_id))
    return {fileset for one in ids for fileset in failures.retained(session, one, "filesets")}
