"""What a person may do with a deletion: call it off, retry it, skip what fails, and protect a workspace from one."""

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.access import audit
from app.access.authorize import Actor
from app.cleanup import failures, ledger
from app.cleanup.history import record
from app.cleanup.requests import notify_workers, workspace_of
from app.clock import database_now
from app.context import Context
from app.db import unique_or
from app.errors import NameTaken, NotFound
from app.lifecycle import WorkspaceMove
from app.models import Deletion, RoleBinding, Workspace
from app.models.audit import AuditEvent
from app.services.workspaces import changeable_workspace, move_workspace


def restore(session: Session, actor: Actor, deletion: Deletion, *, name: str | None = None) -> Workspace:
    """Give a workspace back as it was, under another name if `name` is given.

    Raises WrongState once destruction has begun, NameTaken when a successor has the name.
    """
    new_name = name or deletion.workspace_name
    ledger.close_as_restored(session, deletion.id, actor=actor.id, name=new_name)
    session.execute(
        update(RoleBinding)
        .where(RoleBinding.revoked_by_deletion == deletion.id)
        .values(revoked_at=None, revoked_by_deletion=None)
    )
    taken = NameTaken(f"Workspace '{new_name}' already exists; give another name to restore under.")
    with unique_or(session, taken):
        workspace = move_workspace(
            session,
            WorkspaceMove.RESTORE,
            Workspace.id == deletion.workspace_id,
            name=new_name,
            updated_at=database_now(),
            updated_by=actor.id,
        )
    if workspace is None:
        raise RuntimeError(f"workspace {deletion.workspace_id} is not in the state of its deletion")
    audit.record(
        session,
        actor,
        AuditEvent.WORKSPACE_RESTORED,
        workspace=(workspace.id, new_name),
        subject=str(deletion.id),
        deleted_as=None if new_name == deletion.workspace_name else deletion.workspace_name,
    )
    return workspace


def retry(session: Session, context: Context, actor: Actor, deletion: Deletion) -> None:
    """Reopen a FAILED deletion on behalf of a person. Raises as `reopen`."""
    reopen(session, context, actor, deletion, event="retried")
    audit.record(
        session,
        actor,
        AuditEvent.DELETION_RETRIED,
        workspace=workspace_of(deletion),
        subject=str(deletion.id),
    )


def reopen(session: Session, context: Context, actor: Actor, deletion: Deletion, *, event: str) -> None:
    """Make a FAILED deletion due again, and notify the workers. Raises WrongState unless it is FAILED."""
    ledger.reopen(session, deletion.id, event=event, actor=actor.id)
    notify_workers(session, context, deletion)


def skip(
    session: Session,
    context: Context,
    actor: Actor,
    deletion: Deletion,
    *,
    reason: str,
    kind: str | None = None,
    resource_id: str | None = None,
) -> None:
    """Give up on one failing resource, or on all that fail now, and go on with the rest.

    A failure of a kind as a whole (`*`) stands for no resource that could be left behind: it is forgotten, and the next
    pass tries the kind anew. That of the store is given up like a resource.
    Raises WrongState unless the deletion is FAILED, NotFound if it has no such failure to skip.
    """
    ledger.lock(session, deletion.id)
    is_whole = resource_id in (None, failures.WHOLE_KIND)
    chosen = failures.skip(
        session, deletion.id, actor=actor.id, reason=reason, kind=kind, resource_id=resource_id
    )
    forgotten = failures.forget_whole_kinds(session, deletion.id, kind) if is_whole else 0
    event = AuditEvent.DELETION_SKIPPED if kind else AuditEvent.DELETION_FORCED
    for one in chosen:
        _record_skipped(session, actor, deletion, event, one, reason=reason)
    reopen(session, context, actor, deletion, event="reopened")
    if not chosen and not forgotten:
        what = f"'{kind}/{resource_id}'" if kind else "a resource"
        raise NotFound(
            f"Deletion '{deletion.id}' has no failure of {what} that could be skipped; see its failures."
        )


def _record_skipped(
    session: Session,
    actor: Actor,
    deletion: Deletion,
    event: AuditEvent,
    skipped: tuple[str, str, str],
    *,
    reason: str,
) -> None:
    kind, resource_id, name = skipped
    record(
        session,
        deletion.id,
        "skipped",
        actor=actor.id,
        kind=kind,
        resource_id=resource_id,
        name=name,
        reason=reason,
    )
    audit.record(
        session,
        actor,
        event,
        workspace=workspace_of(deletion),
        subject=f"{kind}/{resource_id}",
        deletion_id=str(deletion.id),
        name=name,
        reason=reason,
    )


def set_protection(session: Session, actor: Actor, name: str, *, is_protected: bool) -> Workspace:
    """Forbid the deletion of a workspace, or allow it again."""
    workspace = changeable_workspace(session, actor, name)
    if workspace.is_protected != is_protected:
        workspace.is_protected = is_protected
        workspace.updated_at = database_now()
        workspace.updated_by = actor.id
        event = AuditEvent.WORKSPACE_PROTECTED if is_protected else AuditEvent.WORKSPACE_UNPROTECTED
        audit.record(session, actor, event, workspace=(workspace.id, name))
    return workspace
