"""Workspaces: creating them, and the checks and locks for every access to what is in them."""

from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    Text,
    Uuid,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session, aliased
from uuid_utils.compat import uuid7

from app import clock
from app.access import audit
from app.access.authorize import Access, Actor, access_error, permitted, still_holds
from app.access.principal import EVERYBODY
from app.access.roles import PLATFORM, Role
from app.clock import database_now
from app.context import Context
from app.errors import DomainError, NameTaken
from app.lifecycle import WorkspaceMove, WorkspaceState
from app.models import BUILT_IN, CleanupControl, RoleBinding, Workspace
from app.models.audit import AuditEvent
from app.models.role_binding import binding_name
from app.models.workspace import is_active

OPEN_TO_EVERYBODY = (
    ("default", Role.EDITOR),
    (PLATFORM, Role.VIEWER),
    (PLATFORM, Role.WORKSPACE_CREATOR),
)
"""The roles of every authenticated caller in the built-in workspaces, granted at the first start."""

_HAS_ID = Workspace.id == bindparam("found_id")
"""No parameter of a statement that changes a table has the name of one of its columns: it would be set."""


def readable_workspace(session: Session, actor: Actor, name: str) -> Workspace:
    """The ACTIVE workspace of that name, if `actor` has its permission there.

    Otherwise, and while the workspace is being deleted, raises Forbidden, or NotFound for a PlatformAdmin.
    """
    return _one(session, actor, _named(actor.access), workspace=name)


def readable_workspace_id(session: Session, actor: Actor, name: str) -> UUID:
    """The id of the ACTIVE workspace of that name. Raises as `readable_workspace` does."""
    query = _id_of(_named(actor.access))
    found: UUID | None = session.connection().scalar(query, actor.parameters | {"workspace": name})
    if found is None:
        raise _no_access(session, actor, name)
    return found


def is_readable(actor: Actor, workspace_id: UUID) -> Select[bool]:
    """Asks whether that workspace is ACTIVE, and `actor` has its permission there."""
    found = exists().where(Workspace.id == workspace_id, is_active(), permitted(actor.access))
    return select(found).params(actor.parameters)


def may_still_read(context: Context, actor: Actor, workspace_id: UUID) -> bool:
    """Whether the workspace is still ACTIVE, and `actor` still has its permission there.

    Opens its own transaction. A database that is away takes no right from anybody.
    """
    return still_holds(context.sessions, is_readable(actor, workspace_id))


def writable_workspace(session: Session, actor: Actor, name: str) -> Workspace:
    """The ACTIVE workspace of that name, locked against deletion until the transaction ends.

    Every insert and change below a workspace goes through this function, or its two halves. Raises as
    `readable_workspace` does.
    """
    return _locked(session, actor, name, exclusive=False)


def changeable_workspace(session: Session, actor: Actor, name: str) -> Workspace:
    """The ACTIVE workspace of that name, locked for a change of its own row.

    Waits for the creators in it; those that come later wait for this transaction. Raises as `readable_workspace`
    does, also if the workspace is deleted meanwhile and another one has its name.
    """
    return _locked(session, actor, name, exclusive=True)


def queue_for_change(session: Session, workspace_id: UUID) -> None:
    """Wait for the creators in an ACTIVE workspace; those that come later wait for this transaction."""
    session.execute(_queueing(_with_id(None), exclusive=True), {"found_id": workspace_id})


def lock_active_workspace(session: Session, workspace_id: UUID) -> bool:
    """Whether that workspace is ACTIVE; if so, it is locked against deletion until the transaction ends.

    Called before any row below the workspace is locked: requests take the locks in the same order.
    """
    which = {"found_id": workspace_id}
    session.execute(_queueing(_with_id(None), exclusive=False), which)
    return session.scalar(_locking(_with_id(None), exclusive=False), which) is not None


def queue_for_write(session: Session, actor: Actor, name: str) -> UUID | None:
    """The first half of `writable_workspace`: the second is `locked_workspace`, or a statement with `writable`.

    Returns the id of the workspace that had the name before this waited.
    """
    return _queued(session, actor, name, exclusive=False)


def locked_workspace(session: Session, actor: Actor, name: str, workspace_id: UUID | None) -> Workspace:
    """The second half of `writable_workspace`: the workspace, if it is still there. Raises as that does."""
    return _locked_row(session, actor, name, workspace_id, exclusive=False)


@cache
def writable(access: Access) -> CTE:
    """The part of a statement that locks the workspace of `locked_workspace`: its id, or no row.

    Its parameters are `workspace` and `found_id`, the name and what `queue_for_write` has returned.
    """
    return _locking(_with_id(access), exclusive=False).with_only_columns(Workspace.id).cte("writable")


def _locked(session: Session, actor: Actor, name: str, *, exclusive: bool) -> Workspace:
    workspace_id = _queued(session, actor, name, exclusive=exclusive)
    return _locked_row(session, actor, name, workspace_id, exclusive=exclusive)


def _queued(session: Session, actor: Actor, name: str, *, exclusive: bool) -> UUID | None:
    """Wait for the lock of a workspace; its id. Whether it is still there, the next statement asks."""
    queueing = _queueing(_named(actor.access), exclusive=exclusive)
    found: UUID | None = session.connection().scalar(queueing, actor.parameters | {"workspace": name})
    return found


def _locked_row(
    session: Session, actor: Actor, name: str, workspace_id: UUID | None, *, exclusive: bool
) -> Workspace:
    locking = _locking(_with_id(actor.access), exclusive=exclusive)
    return _one(session, actor, locking, workspace=name, found_id=workspace_id)


def _one(
    session: Session, actor: Actor, query: Select[Workspace], *, workspace: str, **which: Any
) -> Workspace:
    found = session.scalars(query, actor.parameters | {"workspace": workspace} | which).one_or_none()
    if found is None:
        raise _no_access(session, actor, workspace)
    return found


def _no_access(session: Session, actor: Actor, workspace: str) -> DomainError:
    return access_error(session, actor, f"Workspace '{workspace}' not found", workspace=workspace)


@cache
def _named(access: Access) -> Select[Workspace]:
    """The ACTIVE workspace whose name is the parameter `workspace`, if the actor has its permission there."""
    return select(Workspace).where(*is_named(access)).execution_options(populate_existing=True)


def is_named(access: Access) -> tuple[ColumnElement[bool], ...]:
    """A condition: the `Workspace` that the parameter `workspace` names is ACTIVE, and the actor has its permission.

    It is in the statement that reads the data: no deletion, revocation or successor can come between them.
    """
    return Workspace.name == bindparam("workspace"), is_active(), permitted(access)


@cache
def _id_of(query: Select[Workspace]) -> Select[UUID]:
    return query.with_only_columns(Workspace.id)


@cache
def _with_id(access: Access | None) -> Select[Workspace]:
    """The same, if its id is the parameter `found_id`; without `access` whatever its name, and whoever asks."""
    query = _named(access) if access else select(Workspace).where(is_active())
    return query.where(_HAS_ID)


@cache
def _queueing(query: Select[Workspace], *, exclusive: bool) -> Select[UUID, None]:
    """Queues for the lock of the workspace that `query` finds, until the transaction ends; returns its id.

    The row's own lock is not fair: whoever comes while it is shared shares it too, and a stream of creators would
    keep a DELETE out for ever. It is taken all the same, because the previous release takes no other.
    A statement of its own: the next one sees what was committed while this one waited.
    """
    lock = func.pg_advisory_xact_lock if exclusive else func.pg_advisory_xact_lock_shared
    key = func.hashtextextended(func.concat("workspace:", Workspace.id), 0)
    return query.with_only_columns(Workspace.id, lock(key))


@cache
def _locking(query: Select[Workspace], *, exclusive: bool) -> Select[Workspace]:
    """Locks the row of the workspace that `query` finds, shared or to be changed.

    FOR SHARE, not the key share lock of the foreign key: that one lets a DELETE change the state under our open
    transaction, and our row would be left in a workspace that nobody can read. Not FOR SHARE for a change: two
    transactions that share the lock and then both update the row would deadlock.
    """
    return query.with_for_update(read=not exclusive, key_share=exclusive)


def create_workspace(
    session: Session, actor: Actor, name: str, *, description: str | None, with_admin: bool
) -> Workspace:
    """Create an ACTIVE workspace; `with_admin` grants Admin to the actor.

    Raises NameTaken while another ACTIVE workspace has the name; a workspace that is being deleted has freed it.
    """
    workspace_id, admin = uuid7(), actor.principal.email or actor.id
    values = {
        "new_id": workspace_id,
        "new_name": name,
        "new_description": description,
        "actor_id": actor.id,
        **audit.parameters(actor, AuditEvent.WORKSPACE_CREATED),
    }
    if with_admin:
        values |= {
            "binding_id": uuid7(),
            "binding_name": binding_name(workspace_id, admin, Role.ADMIN),
            "admin": admin,
            **audit.parameters(actor, AuditEvent.MEMBER_GRANTED, subject=admin, role=Role.ADMIN),
        }
    workspace = session.scalars(_creation(with_admin=with_admin), values).one_or_none()
    if workspace is None:
        raise NameTaken(f"Workspace '{name}' already exists")
    return workspace


@cache
def _creation(*, with_admin: bool) -> Select[Workspace]:
    """Creates a workspace, its audit records and the binding of its Admin: all of them, or none."""
    created = (
        upsert(Workspace)
        .values(
            id=bindparam("new_id"),
            name=bindparam("new_name"),
            description=bindparam("new_description"),
            state=WorkspaceState.ACTIVE,
            is_protected=False,
            created_at=database_now(),
            created_by=bindparam("actor_id"),
            updated_at=database_now(),
            updated_by=bindparam("actor_id"),
        )
        .on_conflict_do_nothing()
        .returning(Workspace)
        .cte("created")
    )
    others = [audit.recorded(created, AuditEvent.WORKSPACE_CREATED)]
    if with_admin:
        binding = {
            "id": bindparam("binding_id", type_=Uuid),
            "workspace_id": created.c.id,
            "name": bindparam("binding_name", type_=Text),
            "principal": bindparam("admin", type_=Text),
            "role": literal(Role.ADMIN),
            "granted_by": bindparam("actor_id", type_=Text),
        }
        others += [
            insert(RoleBinding).from_select(list(binding), select(*binding.values())).cte(),
            audit.recorded(created, AuditEvent.MEMBER_GRANTED),
        ]
    return select(aliased(Workspace, created)).add_cte(*others)


def update_workspace(session: Session, actor: Actor, name: str, *, description: str | None) -> Workspace:
    """Set the description of a workspace, or clear it with None."""
    workspace_id = _queued(session, actor, name, exclusive=True)
    values = {
        **actor.parameters,
        **audit.parameters(actor, AuditEvent.WORKSPACE_UPDATED),
        "workspace": name,
        "found_id": workspace_id,
        "new_description": description,
        "now": clock.now(),
    }
    changed = session.scalars(_description_change(actor.access), values).one_or_none()
    # It has that description already, or it is not there.
    return changed or _locked_row(session, actor, name, workspace_id, exclusive=True)


@cache
def _description_change(access: Access) -> Select[Workspace]:
    """Changes a description that is another one, with its audit record."""
    description = bindparam("new_description", type_=Text)
    changed = (
        update(Workspace)
        .where(*is_named(access), _HAS_ID, Workspace.description.is_distinct_from(description))
        .values(description=description, updated_at=bindparam("now"), updated_by=bindparam("actor_id"))
        .returning(Workspace)
        .cte("changed")
    )
    change = select(aliased(Workspace, changed)).add_cte(
        audit.recorded(changed, AuditEvent.WORKSPACE_UPDATED)
    )
    return change.execution_options(populate_existing=True)


def move_workspace(
    session: Session, move: WorkspaceMove, *which: ColumnElement[bool], **values: Any
) -> Workspace | None:
    """Change the state of the workspace that meets the conditions `which`, and set `values`: the only writer of states.

    Returns the row after the change, or as it was if the move deletes it; None if no such workspace has the move.
    """
    guard = Workspace.state.in_(move.value.before), *which
    after = move.value.after
    change = (
        update(Workspace).where(*guard).values(state=after, **values)
        if after
        else delete(Workspace).where(*guard)
    )
    return session.scalars(
        change.returning(Workspace), execution_options={"populate_existing": True}
    ).one_or_none()


def installation(session: Session) -> UUID:
    """The id of this installation: that of its workspace `system`, which cannot be deleted."""
    query = select(Workspace.id).where(Workspace.name == PLATFORM, is_active())
    return session.scalars(query).one()


def seed(session: Session) -> list[str]:
    """Create the missing built-in workspaces and their first role bindings; returns the names of those created.

    A role that an operator has revoked is not granted again.
    """
    session.execute(upsert(CleanupControl).values(id=1, paused=False).on_conflict_do_nothing())
    created = []
    for name, description in BUILT_IN.items():
        added = session.scalar(
            upsert(Workspace)
            .values(name=name, description=description)
            .on_conflict_do_nothing(
                # Literal, as in the index: a bound value would not match it once the plan is generic.
                index_elements=["name"],
                index_where=text("state = 'ACTIVE'"),
            )
            .returning(Workspace.id)
        )
        created += [name] if added else []
    for name, role in OPEN_TO_EVERYBODY:
        query = select(Workspace.id).where(Workspace.name == name, is_active())
        _bind(session, session.scalars(query).one(), EVERYBODY, role, granted_by="system")
    return created


def _bind(session: Session, workspace_id: UUID, principal: str, role: Role, *, granted_by: str) -> None:
    """Grant a role unless a binding for it exists; a revoked binding stays revoked."""
    session.execute(
        upsert(RoleBinding)
        .values(
            workspace_id=workspace_id,
            name=binding_name(workspace_id, principal, role),
            principal=principal,
            role=role,
            granted_by=granted_by,
        )
        .on_conflict_do_nothing(index_elements=["workspace_id", "principal", "role"])
    )
