"""Filesets: making them, holding them still while files change, and deleting them with all their bytes."""

from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.context import Context
from app.db import insert_unique, session_scope
from app.errors import Busy, Forbidden, NameTaken, NotFound
from app.logs import get_logger
from app.models import Fileset, Workspace
from app.services.workspaces import writable_workspace
from app.storage.blob_store import BlobStore, BytesRemain

log = get_logger(__name__)

_PURGE_S = 20
"""How long one DELETE removes files: no longer than most clients, and proxies on the way, wait for an answer."""
_PURGE_LOCKED_S = 5
"""The same while locks are held: what was published since it was emptied, unless somebody went on and on."""

SERVICE_SOURCE = "service_source"
"""Custom field by which a service marks a fileset as its own: others read it and do not change it."""


def create_fileset(
    session: Session,
    actor: Actor,
    workspace: Workspace,
    *,
    name: str,
    description: str = "",
    project: str = "",
    purpose: str = "generic",
    details: dict[str, Any] | None = None,
    custom_fields: dict[str, Any] | None = None,
) -> Fileset:
    """Make a fileset in a workspace that `writable_workspace` gave out. Raises NameTaken."""
    fileset = Fileset(
        workspace_id=workspace.id,
        name=name,
        description=description,
        project=project,
        purpose=purpose,
        details=details,
        custom_fields=permitted_fields(actor, custom_fields or {}),
        created_by=actor.id,
        updated_by=actor.id,
    )
    insert_unique(session, fileset, taken=NameTaken(f"Fileset '{workspace.name}/{name}' already exists"))
    return fileset


def find_fileset(
    session: Session, workspace: Workspace, name: str, *, lock: Literal["share", "update"] | None = None
) -> Fileset:
    """The fileset of that name; with `lock` it cannot change (share), or only we can change it (update).

    Raises NotFound.
    """
    query = select(Fileset).where(Fileset.workspace_id == workspace.id, Fileset.name == name)
    if lock:
        query = query.with_for_update(read=lock == "share").execution_options(populate_existing=True)
    fileset = session.scalars(query).one_or_none()
    if fileset is None:
        raise NotFound(f"Fileset '{name}' not found in workspace '{workspace.name}'")
    return fileset


def writable_fileset(session: Session, actor: Actor, workspace: str, name: str) -> Fileset:
    """The fileset whose files are about to change.

    Until the transaction ends, neither it nor its workspace can be deleted: what is stored meanwhile is
    stored before the purge, which will find it. Raises NotFound, and Forbidden for a service's fileset.
    """
    fileset = find_fileset(session, writable_workspace(session, actor, workspace), name, lock="share")
    _refuse_immutable(actor, fileset)
    return fileset


def empty_fileset(context: Context, actor: Actor, *, workspace: str, name: str) -> UUID:
    """Delete the bytes of a fileset, before `delete_fileset` makes sure of it; which fileset that was.

    Outside a transaction: a slow store must not hold the locks that a DELETE of the workspace waits for.
    Raises as `delete_fileset` does.
    """
    with session_scope(context.sessions) as session:
        fileset = writable_fileset(session, actor, workspace, name)
    _purge(context.store, fileset, f"{workspace}/{name}", within_s=_PURGE_S)
    return fileset.id


def delete_fileset(
    session: Session,
    actor: Actor,
    store: BlobStore,
    *,
    workspace: str,
    name: str,
    emptied: UUID | None = None,
) -> Fileset:
    """Delete a fileset, and what bytes it has, in the caller's transaction.

    Raises NotFound when another fileset has the name by now than the one that was `emptied` before.
    If the store fails or takes long, the row stays and Busy is raised: then the same request continues where
    this ended.
    """
    # FOR UPDATE: an upload waiting for its place must find the fileset gone, not store into the void.
    fileset = find_fileset(session, writable_workspace(session, actor, workspace), name, lock="update")
    if emptied not in (None, fileset.id):
        raise NotFound(f"Fileset '{name}' not found in workspace '{workspace}': it was deleted meanwhile")
    _refuse_immutable(actor, fileset)
    _purge(store, fileset, f"{workspace}/{name}", within_s=_PURGE_LOCKED_S)
    session.delete(fileset)
    return fileset


def _purge(store: BlobStore, fileset: Fileset, shown: str, *, within_s: float) -> None:
    try:
        unfinished = store.purge_fileset(fileset.workspace_id, fileset.id, within_s=within_s)
    except (OSError, BytesRemain) as error:
        log.warning("fileset.purge_failed", fileset_id=str(fileset.id), exc_info=error)
        raise Busy(
            f"Fileset '{shown}' was not deleted, because its storage failed ({type(error).__name__}). "
            "Some of its files may be gone; repeat the request to finish."
        ) from error
    if unfinished:
        raise Busy(
            f"Fileset '{shown}' is not deleted yet: {unfinished.removed} of its files went, and there are more. "
            "Repeat the request to go on."
        )


def permitted_fields(
    actor: Actor, given: dict[str, Any], *, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The custom fields that result when `actor` replaces `before` by `given`: only services mark as theirs."""
    if actor.principal.is_service:
        return given
    own = {key: value for key, value in (before or {}).items() if key == SERVICE_SOURCE}
    return {key: value for key, value in given.items() if key != SERVICE_SOURCE} | own


def _refuse_immutable(actor: Actor, fileset: Fileset) -> None:
    if SERVICE_SOURCE in fileset.custom_fields and not actor.principal.is_service:
        raise Forbidden("Access denied: This fileset's files are immutable")
