"""Requesting a deletion: access is revoked in the transaction of the request, workers are notified after it."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Uuid, and_, bindparam, false, or_, select, text, true, update
from sqlalchemy.orm import Session

from app.access import audit
from app.access.authorize import ACTOR_ID, Access, Actor, access_error, is_authentic, is_platform_admin
from app.cleanup import control, ledger, remaining
from app.cleanup.history import notify_receivers, record
from app.clock import database_now, seconds_since
from app.config import Settings
from app.context import Context
from app.dispatch import cleanup_message, notify_after_commit
from app.errors import Forbidden, NotFound, Protected, WrongState
from app.lifecycle import DELETION_UNFINISHED, DeletionState, WorkspaceMove
from app.models import BUILT_IN, Deletion, RoleBinding, Workspace
from app.models.audit import AuditEvent
from app.services.workspaces import changeable_workspace, move_workspace, queue_for_change, readable_workspace

_RETRY_WINDOW_S = 60.0
"""A client that repeats a request whose answer was lost does so within this time."""


@dataclass(frozen=True)
class DeletionRequest:
    """What a requester says beside the name."""

    workspace_id: UUID | None = None
    """The id of the workspace to delete, so that no successor of its name is meant."""
    grace: timedelta = timedelta()
    """The least grace period; that of the settings may be longer."""
    reason: str | None = None
    is_retry: bool = False
    """Whether the client has sent the request before and has seen no answer."""


_PLAIN = DeletionRequest()


def request_deletion(
    session: Session, context: Context, actor: Actor, name: str, asked: DeletionRequest = _PLAIN
) -> Deletion:
    """Revoke all access to a workspace and hand it to the workers, in the caller's transaction.

    From the commit on nobody can see it or create anything in it, and its name is free. Asking again while it is
    being deleted gives the same deletion; so does asking with the id of the workspace, or as a retry within a minute.
    Workers are notified after the commit; the sweep makes a lost message good. Raises Protected for built-in and
    protected workspaces, WrongState if another workspace has the name, and as `readable_workspace` if none has it.
    """
    if name in BUILT_IN:
        readable_workspace(session, actor, name)  # raises for those who could not delete it anyway
        raise Protected(f"Workspace '{name}' is built in and cannot be deleted.")
    if earlier := _already_answered(session, actor, name, asked):
        return earlier
    _limit_the_wait(session, context.settings)
    try:
        workspace = changeable_workspace(session, actor, name)
    except (Forbidden, NotFound):
        # It may have been deleted while this request waited.
        if earlier := _already_answered(session, actor, name, asked) or _unfinished(
            session, actor, name, asked
        ):
            return earlier
        raise
    if asked.workspace_id not in {None, workspace.id}:
        raise WrongState(
            f"Workspace '{name}' has the id {workspace.id}: it is not the one that the request names."
        )
    if workspace.is_protected:
        raise Protected(
            f"Workspace '{name}' is protected against deletion; take the protection away first "
            f"(PUT /apis/entities/v2/workspaces/{name}/deletion-protection)."
        )
    return _begin(session, context, actor, workspace, asked)


def _already_answered(session: Session, actor: Actor, name: str, asked: DeletionRequest) -> Deletion | None:
    """The deletion that an earlier request for the same thing began, however far it has come."""
    if asked.workspace_id is None and not asked.is_retry:
        return None
    same = Deletion.workspace_id == asked.workspace_id if asked.workspace_id else true()
    is_kept = Deletion.state != DeletionState.RESTORED if asked.workspace_id else false()
    is_recent = seconds_since(Deletion.requested_at) < _RETRY_WINDOW_S if asked.is_retry else false()
    which = and_(same, or_(is_kept, and_(is_recent, Deletion.requested_by == actor.id)))
    return _latest(session, actor, name, which)


def _unfinished(session: Session, actor: Actor, name: str, asked: DeletionRequest) -> Deletion | None:
    if asked.workspace_id:
        return None
    return _latest(session, actor, name, Deletion.state.in_(DELETION_UNFINISHED))


def _latest(session: Session, actor: Actor, name: str, which: ColumnElement[bool]) -> Deletion | None:
    """The latest deletion of that name that the actor may follow."""
    return session.scalars(
        select(Deletion)
        .where(Deletion.workspace_name == name, which, may_follow(actor))
        .order_by(Deletion.requested_at.desc())
        .limit(1),
        actor.parameters,
    ).one_or_none()


def _begin(
    session: Session, context: Context, actor: Actor, workspace: Workspace, asked: DeletionRequest
) -> Deletion:
    """Delete a workspace that is locked for a change."""
    values = {"updated_at": database_now(), "updated_by": actor.id}
    if move_workspace(session, WorkspaceMove.DELETE, Workspace.id == workspace.id, **values) is None:
        raise RuntimeError(f"workspace {workspace.id} has left its state under a lock")
    deletion = _open(session, context, actor.id, workspace, asked)
    _revoke(session, actor, deletion)
    control.hold_on_burst(session, context.settings, deletion)
    notify_receivers(session, context.publisher)
    if deletion.purge_after == deletion.requested_at:
        first = remaining.first_kind(session, workspace.id)
        notify_workers(session, context, deletion, first.name if first else None)
    return deletion


def repeat_deletion(
    session: Session, context: Context, actor: str, workspace_id: UUID, *, finished_as: UUID
) -> Deletion | None:
    """Delete a workspace that was deleted before, as `finished_as`, and that a restored backup has brought back.

    As `request_deletion`, but by id, and for an operator, who has looked whether it is protected: no number of them is
    a burst. None unless it is ACTIVE.
    """
    _limit_the_wait(session, context.settings)
    queue_for_change(session, workspace_id)
    workspace = move_workspace(
        session,
        WorkspaceMove.DELETE,
        Workspace.id == workspace_id,
        Workspace.name.not_in(BUILT_IN),
        updated_at=database_now(),
        updated_by=actor,
    )
    if workspace is None:
        return None
    deletion = _open(session, context, actor, workspace, DeletionRequest())
    _revoke(session, actor, deletion, replayed=str(finished_as))
    record(session, deletion.id, "replayed", actor=actor, finished_as=str(finished_as))
    notify_receivers(session, context.publisher)
    if deletion.purge_after == deletion.requested_at:
        first = remaining.first_kind(session, workspace.id)
        notify_workers(session, context, deletion, first.name if first else None)
    return deletion


def _open(
    session: Session, context: Context, actor: str, workspace: Workspace, asked: DeletionRequest
) -> Deletion:
    return ledger.open_deletion(
        session,
        workspace=workspace,
        actor=actor,
        grace_s=max(asked.grace.total_seconds(), context.settings.deletion_grace),
        reason=asked.reason,
    )


def _limit_the_wait(session: Session, settings: Settings) -> None:
    """Wait for the creators that are at work, but not longer than a client would."""
    lock_s, statement_s = settings.delete_lock_timeout_seconds, settings.statement_timeout_seconds
    session.execute(
        text("SELECT set_config('lock_timeout', :lock, true), set_config('statement_timeout', :all, true)"),
        {"lock": f"{int(lock_s * 1000)}ms", "all": f"{int((lock_s + statement_s) * 1000)}ms"},
    )


def _revoke(session: Session, actor: Actor | str, deletion: Deletion, **detail: str) -> None:
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
        **({"reason": deletion.request_reason} if deletion.request_reason else {}),
        **detail,
    )


def notify_workers(session: Session, context: Context, deletion: Deletion, phase: str | None) -> None:
    """Enqueue a slice once the transaction has committed; the sweep replaces a lost message.

    `phase` is a label for those who read the message: the slice finds by itself what there is to do.
    """
    message = cleanup_message(deletion.id, deletion.workspace_name, phase)
    notify_after_commit(session, context.publisher, message)


def may_follow(actor: Actor) -> ColumnElement[bool]:
    """Whether the actor may see the `Deletion` of the surrounding query: it asked for it, or may see all of them.

    The requester need not be a member of the workspace: it has no members any more. Made once, like the conditions of
    `authorize`, and executed with the parameters of the actor.
    """
    return _may_follow(actor.access)


@cache
def _may_follow(access: Access) -> ColumnElement[bool]:
    if not access.is_in_scope:
        return is_platform_admin(access)
    is_its = and_(is_authentic(access), Deletion.requested_by == ACTOR_ID)
    return or_(is_platform_admin(access), is_its)


def find_deletion(session: Session, actor: Actor, deletion_id: str) -> Deletion:
    """The deletion with that id. Raises NotFound unless the actor may follow it, Unauthorized as `access_error`."""
    try:
        key = UUID(deletion_id)
    except ValueError:
        key = None
    found = session.scalars(_with_id(actor.access), actor.parameters | {"asked_id": key}).one_or_none()
    if found is None:
        raise access_error(session, actor, f"Deletion '{deletion_id}' not found")
    return found


@cache
def _with_id(access: Access) -> Select[Deletion]:
    return select(Deletion).where(Deletion.id == bindparam("asked_id", type_=Uuid), _may_follow(access))


def workspace_of(deletion: Deletion) -> tuple[UUID, str]:
    """The workspace of a deletion, as the audit log names it."""
    return deletion.workspace_id, deletion.workspace_name
