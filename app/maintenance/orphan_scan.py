"""The daily search for what deleted workspaces and deployments left behind."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, cast, select
from sqlalchemy.orm import Session

from app import clock
from app.cleanup import failures
from app.context import Context
from app.db import session_scope
from app.logs import explain, get_logger
from app.models import Deletion, Workspace
from app.runtime.deployments.backends.kubernetes.orphans import find_orphans

log = get_logger(__name__)


class OrphansFound(Exception):
    """Something is left of workspaces or deployments that no longer exist, or might be."""


def scan_for_orphans(context: Context) -> str:
    """Look for stored bytes without a workspace and servers without a deployment, and collect abandoned uploads.

    Rows cannot be orphaned: the foreign keys forbid it. Raises OrphansFound naming what a person must look at;
    what is not known is never deleted.
    """
    limit = clock.now() - timedelta(days=context.settings.staged_upload_days)
    collected, troubles = 0, []
    try:
        collected = context.store.collect_staged_uploads(limit)
    except OSError as error:  # must not hide what else there is
        troubles.append(f"an abandoned upload could not be collected: {explain(error)}")
    stored = set(context.store.workspace_ids())
    if orphans := _orphaned_bytes(context, stored):
        named = "; ".join(orphans)
        troubles.append(f"{len(orphans)} workspaces are gone but left bytes behind: {named}")
    try:
        if servers := _orphaned_servers(context):
            named = ", ".join(servers)
            troubles.append(f"{len(servers)} servers in the cluster belong to no deployment: {named}")
    except Exception as error:  # noqa: BLE001 -- a cluster that is away must not hide what else there is
        troubles.append(f"the cluster could not be looked at: {explain(error)}")
    if troubles:
        log.error("orphan_scan.orphans_found", orphans=troubles)
        raise OrphansFound("; ".join(troubles))
    return f"no orphans in {len(stored)} stored workspaces, {collected} abandoned uploads collected"


def _orphaned_bytes(context: Context, stored: set[UUID]) -> list[str]:
    with session_scope(context.sessions) as session:
        known = set(
            session.scalars(select(Workspace.id).where(Workspace.id == any_(cast(list(stored), ARRAY(Uuid)))))
        )
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
