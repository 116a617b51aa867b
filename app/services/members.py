"""Members: who has which roles in a workspace. The only writer of role bindings while a workspace is ACTIVE."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, Select, Text, bindparam, case, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.functions import array_agg

from app import clock
from app.access.audit import record
from app.access.authorize import Access, Actor, access_error, permitted
from app.access.principal import folded
from app.access.roles import PLATFORM, PLATFORM_ROLES, ROLES_IN_PLATFORM, Role
from app.errors import Conflict, LastAdmin, NotFound, Unprocessable
from app.models import RoleBinding, Workspace
from app.models.audit import AuditEvent
from app.models.role_binding import binding_name, folded_principal
from app.models.workspace import is_active
from app.services.workspaces import readable_workspace, writable_workspace


@dataclass(frozen=True)
class Member:
    """A principal with at least one active role; `roles` in the order of the grants."""

    principal: str
    roles: list[Role]
    granted_at: datetime
    granted_by: str


def members_of(session: Session, actor: Actor, workspace: str) -> Select[str, list[str], datetime, str]:
    """The query of every principal with an active role, for `member_in`, the most recent grant first.

    Spellings of one email are one member. Raises as `readable_workspace` does.
    """
    workspace_row = readable_workspace(session, actor, workspace)
    in_order = (RoleBinding.granted_at, RoleBinding.id)

    def in_turn(column: InstrumentedAttribute[Any]) -> array_agg[str]:
        return func.array_agg(aggregate_order_by(column, *in_order), type_=ARRAY(Text))

    member = case(
        (RoleBinding.principal.contains("@"), folded_principal(RoleBinding)),
        else_=RoleBinding.principal,
    )
    return (
        select(
            in_turn(RoleBinding.principal)[1],
            in_turn(RoleBinding.role),
            func.min(RoleBinding.granted_at),
            in_turn(RoleBinding.granted_by)[1],
        )
        .where(RoleBinding.workspace_id == workspace_row.id, RoleBinding.revoked_at.is_(None))
        .group_by(member)
        .order_by(func.max(RoleBinding.granted_at).desc(), member)
    )


def member_in(principal: str, roles: Sequence[str], granted_at: datetime, granted_by: str) -> Member:
    """The member in a row of `members_of`."""
    # It may hold a role in two spellings.
    return Member(principal, [Role(role) for role in dict.fromkeys(roles)], granted_at, granted_by)


def add_member(
    session: Session, actor: Actor, workspace: str, principal: str, roles: Sequence[Role]
) -> Member:
    """Grant `roles` in addition to those of the principal; an active binding stays unchanged.

    Raises Unprocessable for a role that cannot be granted in this workspace.
    """
    workspace_row = _lock_members(session, actor, workspace)
    _require_grantable(workspace_row, roles)
    bindings = _bindings(session, workspace_row, principal)
    for role in roles:
        _grant(session, actor, workspace_row, bindings, principal=principal, role=role)
    return _member(bindings)


def replace_roles(
    session: Session, actor: Actor, workspace: str, principal: str, roles: Sequence[Role]
) -> Member:
    """Make `roles` the only roles of the principal, who need not be a member yet.

    Raises LastAdmin if the workspace would be left without an administrator.
    """
    workspace_row = _lock_members(session, actor, workspace)
    _require_grantable(workspace_row, roles)
    bindings = _bindings(session, workspace_row, principal)
    for binding in bindings:
        if binding.role not in roles:
            _revoke(session, actor, workspace_row, binding)
    for role in roles:
        _grant(session, actor, workspace_row, bindings, principal=principal, role=role)
    return _member(bindings)


def remove_member(session: Session, actor: Actor, workspace: str, principal: str) -> None:
    """Revoke every role of the principal.

    Raises NotFound if it has none, LastAdmin if the workspace would be left without an administrator.
    """
    workspace_row = _lock_members(session, actor, workspace)
    active = [b for b in _bindings(session, workspace_row, principal) if b.revoked_at is None]
    if not active:
        raise NotFound(f"Member '{principal}' not found in workspace '{workspace}'")
    if _is_last_admin(session, workspace_row, principal):
        admin = _admin_role(workspace_row)
        raise LastAdmin(
            f"Cannot remove member '{principal}'. This is the last {admin} for workspace '{workspace}'. "
            f"Add another {admin} before removing this member."
        )
    for binding in active:
        _mark_revoked(session, actor, workspace_row, binding)


def grant_binding(session: Session, actor: Actor, workspace: str, principal: str, role: Role) -> RoleBinding:
    """Grant one role, also if it was revoked before.

    Raises Conflict if the principal has it, Unprocessable if there is no such workspace.
    """
    try:
        workspace_row = _lock_members(session, actor, workspace)
    except NotFound:
        raise Unprocessable(
            f"Workspace '{workspace}' does not exist. Please create the workspace first."
        ) from None
    _require_grantable(workspace_row, [role])
    bindings = _bindings(session, workspace_row, principal)
    if any((one.principal, one.role, one.revoked_at) == (principal, role, None) for one in bindings):
        raise Conflict("Active role binding already exists for this principal/workspace/role combination")
    return _grant(session, actor, workspace_row, bindings, principal=principal, role=role)


def find_binding(session: Session, actor: Actor, name: str) -> tuple[RoleBinding, str]:
    """The binding of that name, active or revoked, and the name of its workspace, which may be any ACTIVE one.

    Raises Forbidden, or NotFound for a PlatformAdmin.
    """
    found = session.execute(_named_binding(actor.access), actor.parameters | {"name": name}).one_or_none()
    if found is None:
        raise access_error(session, actor, f"Role binding '{name}' not found")
    return found[0], found[1]


@cache
def _named_binding(access: Access) -> Select[RoleBinding, str]:
    return (
        select(RoleBinding, Workspace.name)
        .join(Workspace, Workspace.id == RoleBinding.workspace_id)
        .where(RoleBinding.name == bindparam("name"), is_active(), permitted(access))
        .execution_options(populate_existing=True)
    )


def revoke_binding(session: Session, actor: Actor, name: str) -> None:
    """Revoke one role.

    Raises NotFound, Conflict if it is revoked already, LastAdmin if the workspace would be left without an
    administrator.
    """
    _, workspace = find_binding(session, actor, name)
    workspace_row = _lock_members(session, actor, workspace)
    # Read again under the lock: the first query only found the workspace to lock.
    binding, _ = find_binding(session, actor, name)
    if binding.revoked_at is not None:
        raise Conflict("Role binding is already revoked")
    _revoke(session, actor, workspace_row, binding)


def _require_grantable(workspace: Workspace, roles: Sequence[Role]) -> None:
    """Raise Unprocessable for a role that cannot be granted in this workspace."""
    for role in roles:
        if role in PLATFORM_ROLES and workspace.name != PLATFORM:
            raise Unprocessable(f"Role '{role}' can only be granted in workspace '{PLATFORM}'")
        if role not in ROLES_IN_PLATFORM and workspace.name == PLATFORM:
            raise Unprocessable(
                f"Role '{role}' cannot be granted in workspace '{PLATFORM}', which only platform administrators "
                f"change; grant {', '.join(sorted(ROLES_IN_PLATFORM))}."
            )


def _lock_members(session: Session, actor: Actor, workspace: str) -> Workspace:
    """The workspace as `writable_workspace` returns it, with its members locked until the transaction ends."""
    workspace_row = writable_workspace(session, actor, workspace)
    # Otherwise two Admins who remove each other would each see the other remain. Not a lock on the workspace's row:
    # that one would wait for every creator that shares it, and they for us.
    session.execute(
        select(func.pg_advisory_xact_lock(func.hashtextextended(f"members:{workspace_row.id}", 0)))
    )
    return workspace_row


def _bindings(session: Session, workspace: Workspace, principal: str) -> list[RoleBinding]:
    """All bindings of the principal, active and revoked, in the order of the grants; of an email in any case."""
    is_same = RoleBinding.principal == principal
    if "@" in principal:
        is_same = folded_principal(RoleBinding) == folded(principal)
    return list(
        session.scalars(
            select(RoleBinding)
            .where(RoleBinding.workspace_id == workspace.id, is_same)
            .order_by(RoleBinding.granted_at, RoleBinding.id)
            .execution_options(populate_existing=True)
        )
    )


def _grant(
    session: Session,
    actor: Actor,
    workspace: Workspace,
    bindings: list[RoleBinding],
    *,
    principal: str,
    role: Role,
) -> RoleBinding:
    """Grant a role to a principal that has these `bindings`; a new binding is added to them."""
    # In the spelling that is asked for, because ids are compared exactly.
    exact = [one for one in bindings if one.role == role and one.principal == principal]
    if exact:
        binding = exact[0]
        if binding.revoked_at is None:
            return binding
    else:
        binding = RoleBinding(
            workspace_id=workspace.id,
            name=binding_name(workspace.id, principal, role),
            principal=principal,
            role=role,
        )
        session.add(binding)
        bindings.append(binding)
    binding.revoked_at = None
    binding.revoked_by_deletion = None
    binding.granted_at = clock.now()
    binding.granted_by = actor.id or "system"
    session.flush()  # gives a new binding its id, which orders roles granted at the same instant
    record(
        session,
        actor,
        AuditEvent.MEMBER_GRANTED,
        workspace=(workspace.id, workspace.name),
        subject=principal,
        role=role,
    )
    return binding


def _revoke(session: Session, actor: Actor, workspace: Workspace, binding: RoleBinding) -> None:
    if binding.revoked_at is not None:
        return
    if binding.role == _admin_role(workspace) and _is_last_admin(session, workspace, binding.principal):
        raise LastAdmin(
            f"Cannot remove {binding.role} role from '{binding.principal}'. "
            f"This is the last {binding.role} for workspace '{workspace.name}'. "
            f"Add another {binding.role} before removing this one."
        )
    _mark_revoked(session, actor, workspace, binding)


def _mark_revoked(session: Session, actor: Actor, workspace: Workspace, binding: RoleBinding) -> None:
    binding.revoked_at = clock.now()
    record(
        session,
        actor,
        AuditEvent.MEMBER_REVOKED,
        workspace=(workspace.id, workspace.name),
        subject=binding.principal,
        role=binding.role,
    )


def _admin_role(workspace: Workspace) -> Role:
    """The role that can grant roles in this workspace."""
    return Role.PLATFORM_ADMIN if workspace.name == PLATFORM else Role.ADMIN


def _is_last_admin(session: Session, workspace: Workspace, principal: str) -> bool:
    admins = session.scalars(
        select(RoleBinding.principal).where(
            RoleBinding.workspace_id == workspace.id,
            RoleBinding.role == _admin_role(workspace),
            RoleBinding.revoked_at.is_(None),
        )
    )
    return {folded(admin) for admin in admins} == {folded(principal)}


def _member(bindings: Iterable[RoleBinding]) -> Member:
    active = sorted(
        (binding for binding in bindings if binding.revoked_at is None),
        key=lambda binding: (binding.granted_at, binding.id),
    )
    first = active[0]
    return Member(
        principal=first.principal,
        roles=list(dict.fromkeys(Role(binding.role) for binding in active)),
        granted_at=first.granted_at,
        granted_by=first.granted_by,
    )
