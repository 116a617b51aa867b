"""May they? Decided in the database, in the query that reads the data, so that nothing can change in between.

Roles count while they are not revoked, in the workspace whose id they were granted for: nothing is remembered
from one query to the next, and a workspace that takes over a name takes over nothing else.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, exists, false, or_, select, true
from sqlalchemy.orm import Session, aliased

from app.access.permissions import AUTHENTICATED, Permission, roles_permitting
from app.access.principal import Principal
from app.access.roles import PLATFORM, Role
from app.errors import DomainError, Forbidden, NotFound
from app.lifecycle import WorkspaceState
from app.models import RoleBinding, Workspace


@dataclass(frozen=True)
class Actor:
    """A principal doing one thing: whatever a decision about it, or a record of it, has to know.

    `is_in_scope` is False when its token was not issued for this kind of request.
    """

    principal: Principal
    permission: Permission
    is_in_scope: bool = True
    address: str = ""
    request_id: str = ""

    @property
    def id(self) -> str:
        """Under which id it goes on record."""
        return self.principal.id


def permitted(actor: Actor) -> ColumnElement[bool]:
    """Whether the actor holds its permission in the `Workspace` of the surrounding query, as a condition of it."""
    return or_(is_platform_admin(actor), _holds(actor) if actor.is_in_scope else false())


def is_platform_admin(actor: Actor) -> ColumnElement[bool]:
    """Whether the actor may do anything anywhere, as a condition of a query."""
    if actor.principal.is_platform_admin:
        return true()
    return exists(_held_in_platform(actor, [Role.PLATFORM_ADMIN]))


def require_platform_wide(session: Session, actor: Actor) -> None:
    """Raise Forbidden unless the actor holds its permission, which is about no workspace."""
    held: ColumnElement[bool] = false()
    if actor.is_in_scope and actor.permission in AUTHENTICATED:
        held = true()
    elif actor.is_in_scope:
        held = exists(_held_in_platform(actor, roles_permitting(actor.permission)))
    if not session.scalar(select(or_(is_platform_admin(actor), held))):
        raise Forbidden("Forbidden")


def access_error(
    session: Session, actor: Actor, missing: str, *, workspace: str | None = None
) -> DomainError:
    """What to answer when a query with `permitted` found nothing: NotFound, or Forbidden to those without access.

    They must not learn which of the two it is. A member of `workspace` is told what the request would need.
    """
    if session.scalar(select(is_platform_admin(actor))):
        return NotFound(missing)
    held = _roles_held(session, actor, workspace) if workspace else []
    if not held:
        return Forbidden("Forbidden")
    if not actor.is_in_scope:
        return Forbidden("Forbidden: the scopes of this token do not cover the request.")
    needed = [role for role in roles_permitting(actor.permission) if role is not Role.PLATFORM_ADMIN]
    return Forbidden(
        f"Forbidden: {actor.permission} in workspace '{workspace}' needs {' or '.join(needed) or 'PlatformAdmin'}; "
        f"you are {', '.join(held)}."
    )


def _holds(actor: Actor) -> ColumnElement[bool]:
    """Whether a role that the actor holds in the `Workspace` of the surrounding query permits what it wants."""
    binding = aliased(RoleBinding)
    roles = roles_permitting(actor.permission)
    # IN, not a correlated EXISTS: a list over many workspaces then reads the actor's bindings once.
    granting = select(binding.workspace_id).where(_is_held(binding, actor), binding.role.in_(roles))
    held = Workspace.id.in_(granting)
    # Whatever else somebody was granted in `system`, it lets them read there and nothing more.
    return held if Role.VIEWER in roles else and_(held, Workspace.name != PLATFORM)


def _held_in_platform(actor: Actor, roles: list[Role]) -> Select[object]:
    binding, platform = aliased(RoleBinding), aliased(Workspace)
    return (
        select(binding.id)
        .join(platform, platform.id == binding.workspace_id)
        .where(
            platform.name == PLATFORM,
            platform.state == WorkspaceState.ACTIVE,
            _is_held(binding, actor),
            binding.role.in_(roles),
        )
    )


def _roles_held(session: Session, actor: Actor, workspace: str) -> list[str]:
    query = (
        select(RoleBinding.role)
        .join(Workspace, Workspace.id == RoleBinding.workspace_id)
        .where(
            Workspace.name == workspace,
            Workspace.state == WorkspaceState.ACTIVE,
            _is_held(RoleBinding, actor),
        )
        .distinct()
        .order_by(RoleBinding.role)
    )
    return list(session.scalars(query))


def _is_held(binding: type[RoleBinding], actor: Actor) -> ColumnElement[bool]:
    return and_(binding.revoked_at.is_(None), binding.principal.in_(actor.principal.identities))
