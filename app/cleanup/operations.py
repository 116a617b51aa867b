"""What a person may do with a deletion: call it off, retry it, skip what fails, and protect a workspace from one."""

from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, update
from sqlalchemy.orm import Session

from app.access import audit
from app.access.authorize import Actor, require_platform_wide
from app.access.permissions import Permission
from app.cleanup import failures, ledger
from app.cleanup.history import notify_receivers, record
from app.cleanup.lease import Claim, renew, write
from app.cleanup.requests import notify_workers, workspace_of
from app.clock import database_now
from app.context import Context
from app.db import unique_or
from app.errors import NameTaken, NotFound
from app.lifecycle import WorkspaceMove
from app.models import Deletion, RoleBinding, Workspace
from app.models.audit import AuditEvent
from app.services.workspaces import changeable_workspace, move_workspace


def restore(
    session: Session, context: Context, actor: Actor, deletion: Deletion, *, name: str | None = None
) -> Workspace:
    """Give a workspace back as it was, under another name if `name` is given.

    Raises WrongState once destruction has begun, NameTaken when a successor has the name, Forbidden for another name
    if the actor may create no workspaces.
    """
    new_name = name or deletion.workspace_name
    if new_name != deletion.workspace_name:
        require_platform_wide(session, replace(actor, permission=Permission.WORKSPACES_CREATE))
    ledger.close_as_restored(session, deletion.id, actor=actor.id, name=new_name)
    notify_receivers(session, context.publisher)
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


def retry(
    session: Session, context: Context, actor: Actor, deletion: Deletion, *, as_of: datetime | None = None
) -> None:
    """Reopen a FAILED deletion on behalf of a person. Raises as `reopen`."""
    ledger.lock(session, deletion.id)
    reopen(session, context, actor, deletion, event="retried", as_of=as_of)
    audit.record(
        session,
        actor,
        AuditEvent.DELETION_RETRIED,
        workspace=workspace_of(deletion),
        subject=str(deletion.id),
    )


def reopen(
    session: Session,
    context: Context,
    actor: Actor,
    deletion: Deletion,
    *,
    event: str,
    as_of: datetime | None = None,
    **values: Any,
) -> None:
    """Make a FAILED deletion due again, change other `values` with it, and notify the workers.

    Raises WrongState unless it is FAILED, and with `as_of`, at which the actor looked, has been since then.
    """
    phase = deletion.phase  # where it failed: to look for what is left may take long
    ledger.reopen(session, deletion.id, event=event, actor=actor.id, as_of=as_of, **values)
    notify_workers(session, context, deletion, phase)


def skip(
    session: Session,
    context: Context,
    actor: Actor,
    deletion: Deletion,
    *,
    kind: str,
    resource_id: str,
    reason: str,
    as_of: datetime | None = None,
) -> None:
    """Give up on one failing resource, and go on with the rest.

    A failure of a kind as a whole (`*`) stands for no resource that could be left behind: it is forgotten, and the next
    pass tries the kind anew. That of the store is given up like a resource.
    Raises WrongState as `reopen`, NotFound if it has no such failure to skip.
    """
    ledger.lock(session, deletion.id)
    name = failures.skip(session, deletion.id, kind, resource_id, actor=actor.id, reason=reason)
    is_whole = resource_id == failures.WHOLE_KIND
    of_kind = failures.alike(kind=kind)
    forgotten = failures.forget_whole_kinds(session, deletion.id, of_kind) if is_whole else 0
    if name is not None:
        about = {"name": name, "reason": reason}
        record(session, deletion.id, "skipped", actor=actor.id, kind=kind, resource_id=resource_id, **about)
        audit.record(
            session,
            actor,
            AuditEvent.DELETION_SKIPPED,
            workspace=workspace_of(deletion),
            subject=f"{kind}/{resource_id}",
            deletion_id=str(deletion.id),
            **about,
        )
    reopen(session, context, actor, deletion, event="reopened", as_of=as_of)
    if name is None and not forgotten:
        raise _nothing_to_skip(deletion, f"'{kind}/{resource_id}'")


def skip_alike(
    session: Session,
    context: Context,
    actor: Actor,
    deletion: Deletion,
    which: ColumnElement[bool],
    *,
    reason: str,
    cause: str | None,
    limit: int,
) -> int:
    """Give up on `which` failing resources, up to `limit`; when none of them is left, go on with the rest. How many.

    The caller has locked the deletion and found it FAILED for them: so it stays as long as there are more. Failures
    of kinds as a whole are forgotten, as by `skip`.
    """
    skipped = failures.skip_chunk(
        session, deletion.id, actor=actor.id, reason=reason, limit=limit, which=which
    )
    is_unfinished = failures.can_skip_any(session, deletion.id, which)
    workspace = workspace_of(deletion)
    _record_skipped(session, actor, deletion.id, workspace, skipped, reason=reason, cause=cause)
    if not is_unfinished:
        failures.forget_whole_kinds(session, deletion.id, which)
        reopen(session, context, actor, deletion, event="reopened")
    return skipped.total()


def force(
    session: Session,
    context: Context,
    actor: Actor,
    deletion: Deletion,
    *,
    reason: str,
    as_of: datetime | None = None,
) -> None:
    """Give up on all that fails now, and go on with the rest.

    Only the decision is written down, however much it is about: the next slice carries it out.
    Failures of kinds as a whole are forgotten, as by `skip`, of which the errors are.
    """
    ledger.lock(session, deletion.id)
    is_any = failures.can_skip_any(session, deletion.id)
    forgotten = failures.forget_whole_kinds(session, deletion.id)
    record(session, deletion.id, "forced", actor=actor.id, reason=reason)
    audit.record(
        session,
        actor,
        AuditEvent.DELETION_FORCED,
        workspace=workspace_of(deletion),
        subject=str(deletion.id),
        reason=reason,
    )
    forced = {"force": {"by": actor.id, "reason": reason, "skipped": {}}} if is_any else {}
    reopen(session, context, actor, deletion, event="reopened", as_of=as_of, **forced)
    if not is_any and not forgotten:
        raise _nothing_to_skip(deletion, "a resource")


def carry_out_force(session: Session, claim: Claim, *, limit: int) -> bool:
    """The worker's side of `force`: skip up to `limit` failures. False once all of them are, which is then on record.

    No pass has begun since, so that what fails is what failed when it was asked for. Raises LeaseLost.
    """
    forced = renew(session, claim).force
    if forced is None:
        return False
    by, reason = forced["by"], forced["reason"]
    chunk = failures.skip_chunk(session, claim.id, actor=by, reason=reason, limit=limit)
    skipped = Counter(forced["skipped"]) + chunk
    is_unfinished = bool(chunk)
    write(session, claim, force={**forced, "skipped": skipped} if is_unfinished else None)
    if is_unfinished:
        return True
    workspace = claim.workspace_id, claim.workspace_name
    _record_skipped(session, by, claim.id, workspace, skipped, reason=reason)
    return False


def _record_skipped(
    session: Session,
    actor: Actor | str,
    deletion_id: UUID,
    workspace: tuple[UUID, str],
    skipped: Counter[str],
    **about: str | None,
) -> None:
    """Put on record how many resources of each kind were given up, and what else is known about it."""
    known = {name: value for name, value in about.items() if value is not None}
    by = actor.id if isinstance(actor, Actor) else actor
    for kind, number in skipped.items():
        record(session, deletion_id, "skipped", actor=by, kind=kind, number=number, **known)
    audit.record(
        session,
        actor,
        AuditEvent.DELETION_SKIPPED,
        workspace=workspace,
        subject=str(deletion_id),
        skipped=skipped,
        **known,
    )


def _nothing_to_skip(deletion: Deletion, what: str) -> NotFound:
    return NotFound(
        f"Deletion '{deletion.id}' has no failure of {what} that could be skipped; see its failures."
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
