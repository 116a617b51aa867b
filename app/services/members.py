"""Members: who holds which roles in a workspace. The one writer of role bindings while it is ACTIVE."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import clock
from app.access.audit import record
from app.access.authorize import Actor, access_error, permitted
from app.access.roles import PLATFORM, PLATFORM_ROLES, ROLES_IN_PLATFORM, Role
from app.errors import Conflict, LastAdmin, NotFound, Unprocessable
from app.lifecycle import WorkspaceState
from app.models import RoleBinding, Workspace
from app.models.audit import AuditEvent
from app.models.role_binding import binding_name
from app.services.workspaces import readable_workspace, writable_workspace


@dataclass(frozen=True)
class Member:
    """A principal with at least one active role; `roles` in the order they were granted."""

    principal: str
    roles: list[Role]
    granted_at: datetime
    granted_by: str


def list_members(session: Session, actor: Actor, workspace: str) -> list[Member]:
    """Everybody with an active role, who was given one last first."""
    home = readable_workspace(session, actor, workspace)
    bindings = session.scalars(
        select(RoleBinding)
        .where(RoleBinding.workspace_id == home.id, RoleBinding.revoked_at.is_(None))
        .order_by(RoleBinding.granted_at.desc(), RoleBinding.id.desc())
    )
    by_principal: dict[str, list[RoleBinding]] = {}
    for binding in bindings:
        by_principal.setdefault(binding.principal, []).append(binding)
    return [_member(found) for found in by_principal.values()]


def add_member(
    session: Session, actor: Actor, workspace: str, principal: str, roles: Sequence[Role]
) -> Member:
    """Grant `roles` on top of those the principal has; a role already held stays as it was granted.

    Raises Unprocessable for a role that the workspace cannot give.
    """
    home = _changing_members(session, actor, workspace)
    _refuse_misplaced(home, roles)
    bindings = _bindings(session, home, principal)
    for role in roles:
        _grant(session, actor, home, bindings, principal=principal, role=role)
    return _member(bindings.values())


def replace_roles(
    session: Session, actor: Actor, workspace: str, principal: str, roles: Sequence[Role]
) -> Member:
    """Make `roles` the only ones that the principal holds, whoever it was before.

    Raises LastAdmin if nobody would administer the workspace any more.
    """
    home = _changing_members(session, actor, workspace)
    _refuse_misplaced(home, roles)
    bindings = _bindings(session, home, principal)
    for binding in bindings.values():
        if binding.role not in roles:
            _revoke(session, actor, home, binding)
    for role in roles:
        _grant(session, actor, home, bindings, principal=principal, role=role)
    return _member(bindings.values())


def remove_member(session: Session, actor: Actor, workspace: str, principal: str) -> None:
    """Revoke every role of the principal.

    Raises NotFound for somebody who has none, LastAdmin if nobody would administer the workspace any more.
    """
    home = _changing_members(session, actor, workspace)
    active = [b for b in _bindings(session, home, principal).values() if b.revoked_at is None]
    if not active:
        raise NotFound(f"Member '{principal}' not found in workspace '{workspace}'")
    if _is_last_admin(session, home, principal):
        raise LastAdmin(
            f"Cannot remove member '{principal}'. This is the last {_keeper(home)} for workspace '{workspace}'. "
            f"Add another {_keeper(home)} before removing this member."
        )
    for binding in active:
        _take_away(session, actor, home, binding)


def grant_binding(session: Session, actor: Actor, workspace: str, principal: str, role: Role) -> RoleBinding:
    """Grant one role, again if it was revoked.

    Raises Conflict if the principal holds it, Unprocessable if there is no such workspace to hold it in.
    """
    try:
        home = _changing_members(session, actor, workspace)
    except NotFound:
        raise Unprocessable(
            f"Workspace '{workspace}' does not exist. Please create the workspace first."
        ) from None
    _refuse_misplaced(home, [role])
    bindings = _bindings(session, home, principal)
    if role in bindings and bindings[role].revoked_at is None:
        raise Conflict("Active role binding already exists for this principal/workspace/role combination")
    return _grant(session, actor, home, bindings, principal=principal, role=role)


def find_binding(session: Session, actor: Actor, name: str) -> tuple[RoleBinding, str]:
    """The binding of that name, revoked ones too, and its workspace's name; in any ACTIVE workspace.

    Raises Forbidden, or NotFound to those who may see every workspace.
    """
    found = session.execute(
        select(RoleBinding, Workspace.name)
        .join(Workspace, Workspace.id == RoleBinding.workspace_id)
        .where(RoleBinding.name == name, Workspace.state == WorkspaceState.ACTIVE, permitted(actor))
        .execution_options(populate_existing=True)
    ).one_or_none()
    if found is None:
        raise access_error(session, actor, f"Role binding '{name}' not found")
    return found[0], found[1]


def revoke_binding(session: Session, actor: Actor, name: str) -> None:
    """Revoke one role.

    Raises NotFound, Conflict if it is revoked already, LastAdmin if nobody would administer the workspace.
    """
    _, workspace = find_binding(session, actor, name)
    home = _changing_members(session, actor, workspace)
    # Again, now that nothing can change any more: the first reading only told whom to wait for.
    binding, _ = find_binding(session, actor, name)
    if binding.revoked_at is not None:
        raise Conflict("Role binding is already revoked")
    _revoke(session, actor, home, binding)


def _refuse_misplaced(home: Workspace, roles: Sequence[Role]) -> None:
    """Raise Unprocessable for a role that means nothing in this workspace."""
    for role in roles:
        if role in PLATFORM_ROLES and home.name != PLATFORM:
            raise Unprocessable(f"Role '{role}' can only be granted in workspace '{PLATFORM}'")
        if role not in ROLES_IN_PLATFORM and home.name == PLATFORM:
            raise Unprocessable(
                f"Role '{role}' means nothing in workspace '{PLATFORM}', which only platform administrators change; "
                f"grant {', '.join(sorted(ROLES_IN_PLATFORM))}."
            )


def _changing_members(session: Session, actor: Actor, workspace: str) -> Workspace:
    """The workspace, behind the gate, with no other change of its members under way until we commit."""
    home = writable_workspace(session, actor, workspace)
    # Two Admins removing each other would each see the other one remain. Not a lock on the row of the
    # workspace: that one would wait for every creator that holds the gate, and they for us.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"members:{home.id}", 0))))
    return home


def _bindings(session: Session, home: Workspace, principal: str) -> dict[str, RoleBinding]:
    """All bindings the principal ever had, by role, as they were granted."""
    found = session.scalars(
        select(RoleBinding)
        .where(RoleBinding.workspace_id == home.id, RoleBinding.principal == principal)
        .order_by(RoleBinding.granted_at, RoleBinding.id)
        .execution_options(populate_existing=True)
    )
    return {binding.role: binding for binding in found}


def _grant(
    session: Session,
    actor: Actor,
    home: Workspace,
    bindings: dict[str, RoleBinding],
    *,
    principal: str,
    role: Role,
) -> RoleBinding:
    binding = bindings.get(role)
    if binding is None:
        binding = RoleBinding(
            workspace_id=home.id,
            name=binding_name(home.id, principal, role),
            principal=principal,
            role=role,
        )
        session.add(binding)
    elif binding.revoked_at is None:
        return binding
    binding.revoked_at = None
    binding.revoked_by_deletion = None
    binding.granted_at = clock.now()
    binding.granted_by = actor.id or "system"
    session.flush()  # gives a new binding its id, by which roles granted at the same instant are ordered
    bindings[role] = binding
    record(
        session,
        actor,
        AuditEvent.MEMBER_GRANTED,
        workspace=(home.id, home.name),
        subject=principal,
        role=role,
    )
    return binding


def _revoke(session: Session, actor: Actor, home: Workspace, binding: RoleBinding) -> None:
    if binding.revoked_at is not None:
        return
    if binding.role == _keeper(home) and _is_last_admin(session, home, binding.principal):
        raise LastAdmin(
            f"Cannot remove {binding.role} role from '{binding.principal}'. "
            f"This is the last {binding.role} for workspace '{home.name}'. "
            f"Add another {binding.role} before removing this one."
        )
    _take_away(session, actor, home, binding)


def _take_away(session: Session, actor: Actor, home: Workspace, binding: RoleBinding) -> None:
    binding.revoked_at = clock.now()
    record(
        session,
        actor,
        AuditEvent.MEMBER_REVOKED,
        workspace=(home.id, home.name),
        subject=binding.principal,
        role=binding.role,
    )


def _keeper(home: Workspace) -> Role:
    """The role without which nobody could give out roles in this workspace any more."""
    return Role.PLATFORM_ADMIN if home.name == PLATFORM else Role.ADMIN


def _is_last_admin(session: Session, home: Workspace, principal: str) -> bool:
    admins = session.scalars(
        select(RoleBinding.principal).where(
            RoleBinding.workspace_id == home.id,
            RoleBinding.role == _keeper(home),
            RoleBinding.revoked_at.is_(None),
        )
    )
    return set(admins) == {principal}


def _member(bindings: Iterable[RoleBinding]) -> Member:
    active = sorted(
        (binding for binding in bindings if binding.revoked_at is None),
        key=lambda binding: (binding.granted_at, binding.id),
    )
    first = active[0]
    return Member(
        principal=first.principal,
        roles=[Role(binding.role) for binding in active],
        granted_at=first.granted_at,
        granted_by=first.granted_by,
    )
