"""Authorization: a condition of the query that reads the data, so that no role can change in between.

A role counts while it is not revoked, in the workspace with the id that it was granted for. No decision is cached
from one query to the next, and a workspace that takes over a name takes over no roles.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, exists, false, or_, select, true
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, aliased

from app.access.permissions import AUTHENTICATED, Permission, roles_permitting
from app.access.principal import Principal, folded
from app.access.roles import PLATFORM, Role
from app.db import Sessions, session_scope
from app.errors import DomainError, Forbidden, NotFound
from app.lifecycle import WorkspaceState
from app.models import RoleBinding, Workspace
from app.models.role_binding import folded_principal


@dataclass(frozen=True)
class Actor:
    """A principal with the permission that its request needs, and the facts for the audit log.

    `is_in_scope` is False if the scopes of its token do not cover the request.
    """

    principal: Principal
    permission: Permission
    is_in_scope: bool = True
    address: str = ""
    request_id: str = ""

    @property
    def id(self) -> str:
        """The principal's id, for the audit log and the columns `created_by` and `updated_by`."""
        return self.principal.id


def permitted(actor: Actor) -> ColumnElement[bool]:
    """A condition: the actor has its permission in the `Workspace` of the surrounding query."""
    return or_(is_platform_admin(actor), _has_role(actor) if actor.is_in_scope else false())


def is_platform_admin(actor: Actor) -> ColumnElement[bool]:
    """A condition: the actor has every permission in every workspace."""
    if actor.principal.is_platform_admin:
        return true()
    return exists(_platform_bindings(actor, [Role.PLATFORM_ADMIN]))


def permitted_platform_wide(actor: Actor) -> ColumnElement[bool]:
    """A condition: the actor has its permission, which is one that concerns no workspace."""
    is_permitted: ColumnElement[bool] = false()
    if actor.is_in_scope and actor.permission in AUTHENTICATED:
        is_permitted = true()
    elif actor.is_in_scope:
        is_permitted = exists(_platform_bindings(actor, roles_permitting(actor.permission)))
    return or_(is_platform_admin(actor), is_permitted)


def require_platform_wide(session: Session, actor: Actor) -> None:
    """Raise Forbidden unless the actor has its permission; for permissions that concern no workspace."""
    if not session.scalar(select(permitted_platform_wide(actor))):
        raise Forbidden("Forbidden")


def still_holds(sessions: Sessions, condition: ColumnElement[bool]) -> bool:
    """Whether a condition of access holds, asked in a transaction of its own.

    A database that is away takes no right from anybody.
    """
    try:
        with session_scope(sessions) as session:
            return bool(session.scalar(select(condition)))
    except (OperationalError, PoolTimeout):
        return True


def access_error(
    session: Session, actor: Actor, missing: str, *, workspace: str | None = None
) -> DomainError:
    """The error for a query with `permitted` that found nothing: NotFound for PlatformAdmins, Forbidden for all others.

    A caller without access must not learn whether the thing exists. The error for a member of `workspace` names
    the roles that the request needs.
    """
    if session.scalar(select(is_platform_admin(actor))):
        return NotFound(missing)
    roles = _roles_in(session, actor, workspace) if workspace else []
    if not roles:
        return Forbidden("Forbidden")
    if not actor.is_in_scope:
        return Forbidden("Forbidden: the scopes of this token do not cover the request.")
    needed = [role for role in roles_permitting(actor.permission) if role is not Role.PLATFORM_ADMIN]
    return Forbidden(
        f"Forbidden: {actor.permission} in workspace '{workspace}' needs {' or '.join(needed) or 'PlatformAdmin'}; "
        f"you are {', '.join(roles)}."
    )


def _has_role(actor: Actor) -> ColumnElement[bool]:
    """A condition: a role of the actor in the `Workspace` of the surrounding query includes its permission."""
    binding = aliased(RoleBinding)
    roles = roles_permitting(actor.permission)
    # IN, not a correlated EXISTS: a list over many workspaces then reads the actor's bindings once.
    workspace_ids = select(binding.workspace_id).where(_is_active(binding, actor), binding.role.in_(roles))
    has_role = Workspace.id.in_(workspace_ids)
    # In `system`, a role other than those of the platform permits reading at most.
    return has_role if Role.VIEWER in roles else and_(has_role, Workspace.name != PLATFORM)


def _platform_bindings(actor: Actor, roles: list[Role]) -> Select[object]:
    binding, platform = aliased(RoleBinding), aliased(Workspace)
    return (
        select(binding.id)
        .join(platform, platform.id == binding.workspace_id)
        .where(
            platform.name == PLATFORM,
            platform.state == WorkspaceState.ACTIVE,
            _is_active(binding, actor),
            binding.role.in_(roles),
        )
    )


def _roles_in(session: Session, actor: Actor, workspace: str) -> list[str]:
    query = (
        select(RoleBinding.role)
        .join(Workspace, Workspace.id == RoleBinding.workspace_id)
        .where(
            Workspace.name == workspace,
            Workspace.state == WorkspaceState.ACTIVE,
            _is_active(RoleBinding, actor),
        )
        .distinct()
        .order_by(RoleBinding.role)
    )
    return list(session.scalars(query))


def _is_active(binding: type[RoleBinding], actor: Actor) -> ColumnElement[bool]:
    is_ours: ColumnElement[bool] = binding.principal.in_(actor.principal.identities)
    email = folded(actor.principal.email)
    if "@" in email:
        is_ours = or_(is_ours, folded_principal(binding) == email)
    return and_(binding.revoked_at.is_(None), is_ours)
