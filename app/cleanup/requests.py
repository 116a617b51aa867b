"""Requesting a deletion: access is revoked in the transaction of the request, workers are notified after it."""

from uuid import UUID

from sqlalchemy import ColumnElement, or_, select, text, update
from sqlalchemy.orm import Session

from app.access import audit
from app.access.authorize import Actor, is_platform_admin
from app.cleanup import control, ledger, remaining
from app.clock import database_now
from app.config import Settings
from app.context import Context
from app.dispatch import cleanup_message, notify_after_commit
from app.errors import Forbidden, NotFound, Protected
from app.lifecycle import DeletionState, WorkspaceMove
from app.models import BUILT_IN, Deletion, RoleBinding, Workspace
from app.models.audit import AuditEvent
from app.services.workspaces import changeable_workspace, move_workspace, readable_workspace


def request_deletion(session: Session, context: Context, actor: Actor, name: str) -> Deletion:
    """Revoke all access to a workspace and hand it to the workers, in the caller's transaction.

    From the commit on nobody can see it or create anything in it, and its name is free. Asking again while it is
    being deleted gives the same deletion. Workers are notified after the commit; the sweep makes a lost message good.
    Raises Protected for built-in and protected workspaces, and as `readable_workspace` if there is none of that name.
    """
    if name in BUILT_IN:
        readable_workspace(session, actor, name)  # raises for those who could not delete it anyway
        raise Protected(f"Workspace '{name}' is built in and cannot be deleted.")
    _limit_the_wait(session, context.settings)
    try:
        workspace = changeable_workspace(session, actor, name)
    except (Forbidden, NotFound):
        # It may have been deleted while this request waited.
        if deletion := _already_requested(session, actor, name):
            return deletion
        raise
    if workspace.is_protected:
        raise Protected(
            f"Workspace '{name}' is protected against deletion; take the protection away first "
            f"(PUT /apis/entities/v2/workspaces/{name}/deletion-protection)."
        )
    return _begin(session, context, actor, workspace)


def _begin(session: Session, context: Context, actor: Actor, workspace: Workspace) -> Deletion:
    """Delete a workspace that is locked for a change."""
    values = {"updated_at": database_now(), "updated_by": actor.id}
    if move_workspace(session, WorkspaceMove.DELETE, Workspace.id == workspace.id, **values) is None:
        raise RuntimeError(f"workspace {workspace.id} has left its state under a lock")
    deletion = ledger.open_deletion(
        session,
        workspace_id=workspace.id,
        name=workspace.name,
        actor=actor.id,
        grace_s=context.settings.deletion_grace,
    )
    _revoke(session, actor, deletion)
    control.trip_on_burst(session, context.settings, deletion)
    if deletion.purge_after == deletion.requested_at:
        notify_workers(session, context, deletion)
    return deletion


def _limit_the_wait(session: Session, settings: Settings) -> None:
    """Wait for the creators that are at work, but not longer than a client would."""
    lock_s, statement_s = settings.delete_lock_timeout_seconds, settings.statement_timeout_seconds
    session.execute(
        text("SELECT set_config('lock_timeout', :lock, true), set_config('statement_timeout', :all, true)"),
        {"lock": f"{int(lock_s * 1000)}ms", "all": f"{int((lock_s + statement_s) * 1000)}ms"},
    )


def _revoke(session: Session, actor: Actor, deletion: Deletion) -> None:
    """End all access to the workspace, and put the request on record."""
    session.execute(
        update(RoleBinding)
        .where(RoleBinding.workspace_id == deletion.workspace_id, RoleBinding.revoked_at.is_(None))
        .values(revoked_at=database_now(), revoked_by_deletion=deletion.id)
    )
    audit.record(
        session,
        actor,
        AuditEvent.DELETION_REQUESTED,
        workspace=workspace_of(deletion),
        subject=str(deletion.id),
    )


def notify_workers(session: Session, context: Context, deletion: Deletion) -> None:
    """Enqueue a slice once the transaction has committed; the sweep replaces a lost message."""
    kind = remaining.first_kind(session, deletion.workspace_id, deletion.id)
    message = cleanup_message(deletion.id, deletion.workspace_name, kind.name if kind else None)
    notify_after_commit(session, context.publisher, message)


def _already_requested(session: Session, actor: Actor, name: str) -> Deletion | None:
    """The unfinished deletion of that name that the actor may follow, the latest first."""
    return session.scalars(
        select(Deletion)
        .where(
            Deletion.workspace_name == name,
            Deletion.state.in_((DeletionState.DELETING, DeletionState.FAILED)),
            may_follow(actor),
        )
        .order_by(Deletion.requested_at.desc())
        .limit(1)
    ).one_or_none()


def may_follow(actor: Actor) -> ColumnElement[bool]:
    """Whether the actor may see the `Deletion` of the surrounding query: it asked for it, or may see all of them.

    The requester need not be a member of the workspace: it has no members any more.
    """
    if not actor.is_in_scope:
        return is_platform_admin(actor)
    return or_(is_platform_admin(actor), Deletion.requested_by == actor.id)


def workspace_of(deletion: Deletion) -> tuple[UUID, str]:
    """The workspace of a deletion, as the audit log names it."""
    return deletion.workspace_id, deletion.workspace_name
