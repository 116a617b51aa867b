"""Filesets: creating them, locking them while files change, and deleting them with all their bytes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Select, Uuid, bindparam, or_, select, union_all
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app import clock
from app.access.authorize import Access, Actor, permitted
from app.access.permissions import Permission
from app.context import Context
from app.db import insert_unique, session_scope
from app.errors import Busy, Conflict, Forbidden, NameTaken, NotFound, Unprocessable, WrongState
from app.lifecycle import JOB_UNENDED
from app.logs import get_logger
from app.models import Entity, Fileset, Job, JobLog, Workspace
from app.models.columns import without_documents
from app.models.job import has_status_in
from app.models.workspace import is_active
from app.services.logs.removal import remove_last_lines, remove_lines
from app.services.workspaces import writable_workspace
from app.storage.blob_store import BlobStore
from app.storage.purge import BytesRemain

log = get_logger(__name__)

_MOST_REFERENCES = 1000
"""The most entities that refer to a fileset of which an answer has the number."""

_PURGE_S = 20
"""Time budget of one DELETE for removing files: most clients and proxies wait longer for an answer."""
_PURGE_LOCKED_S = 5
"""Time budget while locks are held: usually only the files published since `empty_fileset` remain."""

OF_JOB = "job-fileset-"
"""How the name begins of a fileset that is created and deleted with a job, whose name follows."""

SERVICE_SOURCE = "service_source"
"""Custom field that marks a fileset as owned by a service; only services can change its files."""


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
    """Create a fileset in a workspace locked by `writable_workspace`. Raises NameTaken."""
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
    taken = NameTaken(f"Fileset '{workspace.name}/{name}' already exists")
    return insert_unique(session, fileset, taken=taken)


def find_fileset(
    session: Session, workspace: Workspace, name: str, *, lock: Literal["share", "update"] | None = None
) -> Fileset:
    """The fileset of that name, locked against changes by others ("update") or by anybody ("share").

    Raises NotFound.
    """
    query = select(Fileset).where(Fileset.workspace_id == workspace.id, Fileset.name == name)
    if lock:
        query = query.with_for_update(read=lock == "share").execution_options(populate_existing=True)
    fileset = session.scalars(query).one_or_none()
    if fileset is None:
        raise NotFound(f"Fileset '{name}' not found in workspace '{workspace.name}'")
    return fileset


def writable_fileset(
    session: Session, actor: Actor, workspace: str, name: str, *, alone: bool = False
) -> Fileset:
    """The fileset, locked for a change of its files; `alone`, nobody else publishes a file meanwhile.

    Neither it nor its workspace can be deleted until the transaction ends, so that a later purge finds every file
    stored meanwhile. Raises NotFound, and Forbidden for a service's fileset.
    """
    lock: Literal["share", "update"] = "update" if alone else "share"
    fileset = find_fileset(session, writable_workspace(session, actor, workspace), name, lock=lock)
    _require_mutable(actor, fileset)
    return fileset


def require_output(session: Session, actor: Actor, workspace: Workspace, name: str) -> None:
    """Lock the fileset that a job names for its results against deletion until the transaction ends.

    Raises Unprocessable if it is missing, goes with another job, or may not be written by the actor.
    """
    is_in_scope = actor.principal.has_scope_for("files", "write")
    writer = replace(actor, permission=Permission.FILESETS_WRITE, is_in_scope=is_in_scope)
    try:
        fileset = writable_fileset(session, writer, workspace.name, name)
    except (Forbidden, NotFound):
        raise Unprocessable(
            f"fileset '{name}' not found or not accessible in workspace '{workspace.name}'"
        ) from None
    if owner := owner_of(session, fileset):
        raise Unprocessable(
            f"fileset '{name}' goes with job '{owner.name}' when that is deleted; create one for the results of others"
        )


def owner_of(session: Session, fileset: Fileset) -> Job | None:
    """The job with which a fileset was created and goes, if there is one."""
    if not fileset.name.startswith(OF_JOB):
        return None
    owner = select(Job).where(
        Job.workspace_id == fileset.workspace_id,
        Job.name == fileset.name.removeprefix(OF_JOB),
        Job.output_location.is_(None),
    )
    return session.scalars(owner.options(*without_documents(Job))).one_or_none()


def empty_fileset(context: Context, actor: Actor, *, workspace: str, name: str) -> UUID:
    """Delete the files of a fileset before `delete_fileset` deletes the rest under locks; returns its id.

    The files are deleted outside a transaction: a slow store must not hold the locks that a DELETE of the workspace
    waits for. Raises as `delete_fileset` does, and Conflict if a model or an adapter refers to the fileset.
    """
    with session_scope(context.sessions) as session:
        fileset = writable_fileset(session, actor, workspace, name)
        _require_unused(session, actor, fileset, f"{workspace}/{name}")
        _require_no_writer(session, fileset, f"{workspace}/{name}")
    _purge(context.store, fileset, f"{workspace}/{name}", within_s=_PURGE_S)
    if not remove_lines(context, JobLog.fileset_id == fileset.id, within_s=_PURGE_S):
        raise _more_lines(f"{workspace}/{name}")
    return fileset.id


def _require_unused(session: Session, actor: Actor, fileset: Fileset, label: str) -> None:
    """Raise Conflict if a model or an adapter refers to the fileset, as far as the actor may read them.

    What others write into their workspaces keeps nobody from deleting a fileset.
    """
    actor = replace(actor, permission=Permission.ENTITIES_READ)
    names = {"local": fileset.name, "full": label}
    values = {
        f"{name}_{form}": {"fileset": prefix + given}
        for name, given in names.items()
        for form, prefix in (("plain", ""), ("url", "fileset://"))
    }
    found = session.scalars(
        _references(actor.access), {**actor.parameters, **values, "workspace_id": fileset.workspace_id}
    )
    kinds = Counter(found)
    if kinds:
        raise Conflict(
            f"Cannot delete fileset '{label}' because {kinds['model']} model entity reference(s) and "
            f"{kinds['adapter']} adapter entity reference(s) still use it. "
            "Relink or delete the dependent entities first."
        )


@cache
def _references(access: Access) -> Select[str]:
    """The types of up to `_MOST_REFERENCES` entities; each branch has conditions that an index of documents serves."""
    of_type = Entity.entity_type.in_(["model", "adapter"])
    local, full = (
        or_(*(Entity.data.contains(bindparam(f"{name}_{form}", type_=JSONB)) for form in ("plain", "url")))
        for name in ("local", "full")
    )
    found = select(Entity.entity_type).where(of_type)
    here = found.where(Entity.workspace_id == bindparam("workspace_id", type_=Uuid), local)
    anywhere = found.join(Workspace).where(is_active(), permitted(access, in_many=True), full)
    both = union_all(here, anywhere).subquery()
    return select(both.c.entity_type).limit(_MOST_REFERENCES)


def _more_lines(label: str) -> Busy:
    return Busy(
        f"Fileset '{label}' is not deleted yet: more lines of its log remain. Repeat the request to continue."
    )


def delete_fileset(
    session: Session,
    actor: Actor,
    store: BlobStore,
    *,
    workspace: str,
    name: str,
    emptied: UUID | None = None,
) -> Fileset:
    """Delete a fileset and its files in the caller's transaction.

    Raises NotFound if the name now belongs to another fileset than the one `emptied` before, and WrongState while a
    job that has not ended writes to it. Raises Busy if the store fails or is slow: the row stays, and repeating the
    request continues.
    """
    # FOR UPDATE: an upload that waits for the row must find it deleted, and not store a file without a fileset.
    fileset = find_fileset(session, writable_workspace(session, actor, workspace), name, lock="update")
    if emptied not in (None, fileset.id):
        raise NotFound(f"Fileset '{name}' not found in workspace '{workspace}': it was deleted meanwhile")
    _require_mutable(actor, fileset)
    _require_no_writer(session, fileset, f"{workspace}/{name}")
    _purge(store, fileset, f"{workspace}/{name}", within_s=_PURGE_LOCKED_S)
    if not remove_last_lines(session, JobLog.fileset_id == fileset.id):
        raise _more_lines(f"{workspace}/{name}")
    session.delete(fileset)
    return fileset


def _purge(store: BlobStore, fileset: Fileset, label: str, *, within_s: float) -> None:
    try:
        unfinished = store.purge_fileset(fileset.workspace_id, fileset.id, within_s=within_s)
    except (OSError, BytesRemain) as error:
        log.warning("fileset.purge_failed", fileset_id=str(fileset.id), exc_info=error)
        raise Busy(
            f"Fileset '{label}' was not deleted, because its storage failed ({type(error).__name__}). "
            "Some of its files may be gone; repeat the request to finish."
        ) from error
    if unfinished:
        raise Busy(
            f"Fileset '{label}' is not deleted yet: {unfinished.removed} of its files have been removed, and more "
            "remain. Repeat the request to continue."
        )


def permitted_fields(
    actor: Actor, given: dict[str, Any], *, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The custom fields after `actor` replaces `before` by `given`: only services can change SERVICE_SOURCE."""
    if actor.principal.is_service:
        return given
    own = {key: value for key, value in (before or {}).items() if key == SERVICE_SOURCE}
    return {key: value for key, value in given.items() if key != SERVICE_SOURCE} | own


def _require_mutable(actor: Actor, fileset: Fileset) -> None:
    if SERVICE_SOURCE in fileset.custom_fields and not actor.principal.is_service:
        raise Forbidden("Access denied: This fileset's files are immutable")


def _require_no_writer(session: Session, fileset: Fileset, label: str) -> None:
    writer = session.scalar(
        select(Job.name)
        .where(
            Job.workspace_id == fileset.workspace_id,
            Job.output_location == fileset.name,
            has_status_in(JOB_UNENDED),
        )
        .limit(1)
    )
    if writer is not None:
        raise WrongState(
            f"Cannot delete fileset '{label}' because job '{writer}' has not ended and writes its results to it. "
            "Cancel the job, or wait for its end."
        )


def update_fileset(
    session: Session, actor: Actor, workspace: str, name: str, changes: Mapping[str, Any]
) -> Fileset:
    """Set the columns that `changes` names. Raises NotFound."""
    # FOR UPDATE: a concurrent DELETE decides whether there is still a fileset to change.
    fileset = find_fileset(session, writable_workspace(session, actor, workspace), name, lock="update")
    for column, value in changes.items():
        if column == "custom_fields":
            fileset.custom_fields = permitted_fields(actor, value, before=fileset.custom_fields)
        else:
            setattr(fileset, column, value)
    if session.is_modified(fileset):
        fileset.updated_at, fileset.updated_by = clock.now(), actor.id
    return fileset


def empty_and_delete_fileset(context: Context, actor: Actor, *, workspace: str, name: str) -> Fileset:
    """Delete a fileset with all its bytes, in transactions of its own; the row as it was.

    Raises as `delete_fileset` does.
    """
    emptied = empty_fileset(context, actor, workspace=workspace, name=name)
    with session_scope(context.sessions) as session:
        return delete_fileset(session, actor, context.store, workspace=workspace, name=name, emptied=emptied)
