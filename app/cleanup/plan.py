"""Asking for a workspace's end: request it, foresee it, forbid it, call it off."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, text, update
from sqlalchemy.orm import Session

from app import clock
from app.access import audit
from app.access.authorize import Actor, is_platform_admin, may, refusal
from app.cleanup import control, failures, ledger, remaining
from app.cleanup.history import record
from app.context import Context
from app.db import after_commit, unique_or
from app.dispatch import cleanup_ring
from app.errors import NameTaken, NotFound, Protected
from app.lifecycle import DeletionState, DeploymentStatus, JobStatus, WorkspaceState
from app.models import BUILT_IN, Deletion, Deployment, Job, RoleBinding, Workspace
from app.models.audit import AuditEvent
from app.services.workspaces import changeable_workspace, readable_workspace


def request_deletion(session: Session, context: Context, actor: Actor, name: str) -> Deletion:
    """Revoke all access to a workspace and hand it to the workers, in the caller's transaction.

    From the commit on nobody can see it or create anything in it, and its name is free. Asking again while it is
    being deleted gives the same deletion. Rings once committed; a lost ring is made good by the sweep.
    Raises Protected for built-in and protected workspaces, and as `readable_workspace` if there is none of that name.
    """
    if name in BUILT_IN:
        readable_workspace(session, actor, name)  # raises for those who could not delete it anyway
        raise Protected(f"Workspace '{name}' is built in and cannot be deleted.")
    now = clock.now()
    # Creators hold FOR SHARE while they insert; wait for them, but not longer than a client would.
    lock_s, statement_s = (
        context.settings.delete_lock_timeout_seconds,
        context.settings.statement_timeout_seconds,
    )
    session.execute(
        text("SELECT set_config('lock_timeout', :lock, true), set_config('statement_timeout', :all, true)"),
        {"lock": f"{int(lock_s * 1000)}ms", "all": f"{int((lock_s + statement_s) * 1000)}ms"},
    )
    workspace_id = session.scalar(
        update(Workspace)
        .where(
            Workspace.name == name,
            Workspace.state == WorkspaceState.ACTIVE,
            Workspace.is_protected.is_(False),
            may(actor),
        )
        .values(state=WorkspaceState.DELETING, updated_at=now, updated_by=actor.id)
        .returning(Workspace.id)
    )
    if workspace_id is None:
        return _already_requested(session, actor, name)
    deletion = ledger.open_deletion(
        session,
        workspace_id=workspace_id,
        name=name,
        actor=actor.id,
        now=now,
        grace=timedelta(seconds=context.settings.deletion_grace),
    )
    session.execute(
        update(RoleBinding)
        .where(RoleBinding.workspace_id == workspace_id, RoleBinding.revoked_at.is_(None))
        .values(revoked_at=now, revoked_by_deletion=deletion.id)
    )
    audit.record(
        session,
        actor,
        AuditEvent.DELETION_REQUESTED,
        workspace=(workspace_id, name),
        subject=str(deletion.id),
    )
    control.trip_on_burst(session, context.settings, deletion, now=now)
    first = remaining.first_kind(session, workspace_id)
    message = cleanup_ring(deletion.id, name, first.name if first else None)
    if deletion.purge_after <= now:
        after_commit(session, lambda: context.bell.ring(message))
    return deletion


def _already_requested(session: Session, actor: Actor, name: str) -> Deletion:
    if session.scalar(
        select(Workspace.id).where(
            Workspace.name == name, Workspace.state == WorkspaceState.ACTIVE, may(actor)
        )
    ):
        raise Protected(
            f"Workspace '{name}' is protected against deletion; take the protection away first "
            f"(PUT /apis/entities/v2/workspaces/{name}/deletion-protection)."
        )
    living = (DeletionState.DELETING, DeletionState.FAILED)
    deletion = session.scalars(
        select(Deletion)
        .where(Deletion.workspace_name == name, Deletion.state.in_(living), may_follow(actor))
        .order_by(Deletion.requested_at.desc())
        .limit(1)
    ).one_or_none()
    if deletion is None:
        raise refusal(session, actor, f"Workspace '{name}' not found", workspace=name)
    return deletion


def may_follow(actor: Actor) -> ColumnElement[bool]:
    """Whether the actor may see the `Deletion` of the surrounding query: it asked for it, or may see all of them.

    Nobody is a member of the workspace any more, so whoever asked for its end must not need to be.
    """
    if not actor.is_in_scope:
        return is_platform_admin(actor)
    return or_(is_platform_admin(actor), Deletion.requested_by == actor.id)


def restore(session: Session, actor: Actor, deletion: Deletion, *, name: str | None = None) -> Workspace:
    """Give a workspace back as it was, under another name if `name` is given.

    Raises WrongState once destruction has begun, NameTaken when a successor has the name.
    """
    now = clock.now()
    wanted = name or deletion.workspace_name
    ledger.close_as_restored(session, deletion.id, actor=actor.id, now=now, name=wanted)
    session.execute(
        update(RoleBinding)
        .where(RoleBinding.revoked_by_deletion == deletion.id)
        .values(revoked_at=None, revoked_by_deletion=None)
    )
    workspace = session.get_one(Workspace, deletion.workspace_id)
    taken = NameTaken(f"Workspace '{wanted}' already exists; give another name to restore under.")
    with unique_or(session, taken):
        workspace.name = wanted
        workspace.state = WorkspaceState.ACTIVE
        workspace.updated_at = now
        workspace.updated_by = actor.id
    audit.record(
        session,
        actor,
        AuditEvent.WORKSPACE_RESTORED,
        workspace=(workspace.id, wanted),
        subject=str(deletion.id),
        deleted_as=None if wanted == deletion.workspace_name else deletion.workspace_name,
    )
    return workspace


def retry(session: Session, context: Context, actor: Actor, deletion: Deletion) -> None:
    """Set the workers on a FAILED deletion again, because somebody says so. Raises as `reopen`."""
    reopen(session, context, actor, deletion, event="retried")
    audit.record(
        session, actor, AuditEvent.DELETION_RETRIED, workspace=_of(deletion), subject=str(deletion.id)
    )


def _of(deletion: Deletion) -> tuple[UUID, str]:
    return deletion.workspace_id, deletion.workspace_name


def reopen(session: Session, context: Context, actor: Actor, deletion: Deletion, *, event: str) -> None:
    """Set the workers on a FAILED deletion again. Raises WrongState unless it is FAILED."""
    ledger.reopen(session, deletion.id, event=event, actor=actor.id, now=clock.now())
    kind = remaining.first_kind(session, deletion.workspace_id, deletion.id)
    message = cleanup_ring(deletion.id, deletion.workspace_name, kind.name if kind else None)
    after_commit(session, lambda: context.bell.ring(message))


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

    Raises WrongState unless the deletion is FAILED, NotFound if it has no such failure to skip.
    """
    chosen = failures.skip(
        session, deletion.id, actor=actor.id, reason=reason, kind=kind, resource_id=resource_id
    )
    for skipped_kind, skipped_id, name in chosen:
        record(
            session,
            deletion.id,
            "skipped",
            actor=actor.id,
            at=clock.now(),
            kind=skipped_kind,
            resource_id=skipped_id,
            name=name,
            reason=reason,
        )
        audit.record(
            session,
            actor,
            AuditEvent.DELETION_SKIPPED if kind else AuditEvent.DELETION_FORCED,
            workspace=_of(deletion),
            subject=f"{skipped_kind}/{skipped_id}",
            deletion_id=str(deletion.id),
            name=name,
            reason=reason,
        )
    reopen(session, context, actor, deletion, event="reopened")
    if not chosen:
        what = f"'{kind}/{resource_id}'" if kind else "a resource"
        raise NotFound(
            f"Deletion '{deletion.id}' has no failure of {what} that could be skipped; "
            f"see its failures. One of a kind as a whole ('*') cannot be skipped, but for that of the store: mend its "
            f"cause and retry."
        )


def set_protection(session: Session, actor: Actor, name: str, *, is_protected: bool) -> Workspace:
    """Forbid the deletion of a workspace, or allow it again."""
    workspace = changeable_workspace(session, actor, name)
    if workspace.is_protected != is_protected:
        workspace.is_protected = is_protected
        workspace.updated_at = clock.now()
        workspace.updated_by = actor.id
        event = AuditEvent.WORKSPACE_PROTECTED if is_protected else AuditEvent.WORKSPACE_UNPROTECTED
        audit.record(session, actor, event, workspace=(workspace.id, name))
    return workspace


@dataclass(frozen=True)
class Preview:
    """What a DELETE would destroy now, but for the bytes in the store."""

    workspace_id: UUID
    remaining: dict[str, int]
    running_jobs: int
    running_deployments: int
    protected: bool


def preview(session: Session, actor: Actor, name: str) -> Preview:
    """Count what a workspace holds, without touching it."""
    workspace = readable_workspace(session, actor, name)
    return Preview(
        workspace_id=workspace.id,
        remaining=remaining.count_by_kind(session, [workspace.id])[workspace.id],
        running_jobs=_count_in(session, Job, workspace.id, JobStatus.ACTIVE),
        running_deployments=_count_in(session, Deployment, workspace.id, DeploymentStatus.READY),
        protected=workspace.is_protected or name in BUILT_IN,
    )


def _count_in(
    session: Session, model: type[Job | Deployment], workspace_id: UUID, status: JobStatus | DeploymentStatus
) -> int:
    query = select(func.count()).where(model.workspace_id == workspace_id, model.status == status)
    return session.scalar(query) or 0
