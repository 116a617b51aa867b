"""Authorization: a condition of the query that reads the data, so that no role can change in between.

A role counts while it is not revoked, in the workspace with the id that it was granted for. No decision is cached
from one query to the next, and a workspace that takes over a name takes over no roles. Of an actor with an access key
the same conditions ask whether the key is in force.

The conditions are made once, because that takes longer than asking them. Who is asked about is in parameters of the
statement, `Actor.parameters`: one that is executed without them fails.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    exists,
    false,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, aliased

from app.access.permissions import AUTHENTICATED, Permission, roles_permitting
from app.access.principal import Principal, folded
from app.access.roles import PLATFORM, Role
from app.db import Sessions, read
from app.errors import DomainError, Forbidden, NotFound, Unauthorized
from app.models import AccessKey, RoleBinding, Workspace
from app.models.access_key import is_in_force
from app.models.role_binding import folded_principal
from app.models.workspace import is_active

ACTOR_ID = bindparam("actor_id", type_=Text)
"""The id of the actor, in a statement that is executed with `Actor.parameters`."""

_IDENTITIES = bindparam("actor_identities", type_=ARRAY(Text))
_EMAIL = bindparam("actor_email", type_=Text)
_KEY = bindparam("actor_key", type_=Text)
_KEY_PRINCIPAL = bindparam("actor_key_principal", type_=Text)
_KEY_EMAIL = bindparam("actor_key_email", type_=Text)


Question = Callable[[], Select[bool]]
"""Makes a statement that asks about access, with its parameters."""


@dataclass(frozen=True)
class Access:
    """What a condition of access is made from, apart from its parameters."""

    permission: Permission
    is_in_scope: bool
    is_platform_admin: bool
    has_key: bool = False
    """Whether an access key has authenticated the actor."""


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

    @cached_property
    def access(self) -> Access:
        """What the conditions below are made from."""
        principal = self.principal
        return Access(
            self.permission, self.is_in_scope, principal.is_platform_admin, bool(principal.access_key)
        )

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The parameters of every statement with one of the conditions below."""
        principal = self.principal
        email = folded(principal.email)
        known = {
            "actor_id": principal.id,
            "actor_identities": sorted(principal.identities),
            "actor_email": email if "@" in email else None,
        }
        if not principal.access_key:
            return known
        return known | {
            "actor_key": principal.access_key,
            "actor_key_principal": principal.id,
            "actor_key_email": principal.email,
        }


@cache
def is_authentic(access: Access) -> ColumnElement[bool]:
    """A condition: the access key that has authenticated the actor, if one has, is in force. Each other has it, too."""
    if not access.has_key:
        return true()
    key = aliased(AccessKey)
    # Its token says whom it belongs to; a forged one would have to name a key of the same principal.
    is_its = and_(key.principal == _KEY_PRINCIPAL, key.email == _KEY_EMAIL)
    return exists().where(key.jti == _KEY, is_its, is_in_force(key))


@cache
def permitted(access: Access, *, in_many: bool = False) -> ColumnElement[bool]:
    """A condition: the actor has its permission in the `Workspace` of the surrounding query.

    With `in_many` that query looks for many workspaces, and the actor's bindings are read once for all of them.
    """
    has_role = _has_role(access, in_many=in_many) if access.is_in_scope else false()
    return and_(is_authentic(access), or_(_is_admin(access), has_role))


@cache
def is_platform_admin(access: Access) -> ColumnElement[bool]:
    """A condition: the actor has every permission in every workspace."""
    return and_(is_authentic(access), _is_admin(access))


@cache
def permitted_platform_wide(access: Access) -> ColumnElement[bool]:
    """A condition: the actor has its permission, which is one that concerns no workspace."""
    is_permitted: ColumnElement[bool] = false()
    if access.is_in_scope and access.permission in AUTHENTICATED:
        is_permitted = true()
    elif access.is_in_scope:
        is_permitted = exists(_platform_bindings(roles_permitting(access.permission)))
    return and_(is_authentic(access), or_(_is_admin(access), is_permitted))


def require_platform_wide(session: Session, actor: Actor) -> None:
    """Raise Forbidden unless the actor has its permission; for permissions that concern no workspace.

    Raises Unauthorized as `require_authentic` does.
    """
    if _is_certain(actor.access):
        return
    if not session.scalar(_platform_wide(actor.access), actor.parameters):
        require_authentic(session, actor)
        raise Forbidden("Forbidden")


def require_authentic(session: Session, actor: Actor) -> None:
    """Raise Unauthorized if an access key that is not in force has authenticated the actor.

    Asked when a statement has found nothing: one that finds something has asked about the key itself.
    """
    if actor.access.has_key and not session.scalar(still_authentic(actor)):
        raise Unauthorized("Invalid or expired token: its access key is revoked, suspended or expired")


def still_authentic(actor: Actor) -> Select[bool]:
    """Asks whether the access key that has authenticated the actor, if one has, is in force."""
    return select(is_authentic(actor.access)).params(actor.parameters)


@cache
def _platform_wide(access: Access) -> Select[bool]:
    return select(permitted_platform_wide(access))


def _is_certain(access: Access) -> bool:
    """Whether the condition is true whatever is in the database, so that it need not be asked."""
    is_everybodys = access.is_in_scope and access.permission in AUTHENTICATED
    return not access.has_key and (access.is_platform_admin or is_everybodys)


def always() -> Select[bool]:
    """Asks nothing: yes."""
    return select(true())


def still_holds(sessions: Sessions, question: Select[bool]) -> bool:
    """Whether the answer to a question about access is yes, asked by itself.

    A database that is away takes no right from anybody.
    """
    try:
        return bool(read(sessions, lambda session: session.scalar(question)))
    except (OperationalError, PoolTimeout):
        return True


def access_error(
    session: Session, actor: Actor, missing: str, *, workspace: str | None = None
) -> DomainError:
    """The error for a query with `permitted` that found nothing: NotFound for PlatformAdmins, Forbidden for all others.

    A caller without access must not learn whether the thing exists. The error for a member of `workspace` names
    the roles that the request needs. Raises Unauthorized as `require_authentic` does.
    """
    require_authentic(session, actor)
    if session.scalar(select(is_platform_admin(actor.access)), actor.parameters):
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


def _is_admin(access: Access) -> ColumnElement[bool]:
    return true() if access.is_platform_admin else exists(_platform_bindings([Role.PLATFORM_ADMIN]))


def _has_role(access: Access, *, in_many: bool) -> ColumnElement[bool]:
    """A condition: a role of the actor in the `Workspace` of the surrounding query includes its permission."""
    binding = aliased(RoleBinding)
    roles = roles_permitting(access.permission)
    ours = select(binding.workspace_id).where(_is_ours(binding), _has_one_of(binding, roles))
    # For one workspace, IN would read all bindings of an actor who is a member of thousands. So would EXISTS, whose
    # subquery PostgreSQL may carry out once for all workspaces, too, but for its OFFSET.
    here = ours.where(binding.workspace_id == Workspace.id).offset(literal_column("0"))
    has_role = Workspace.id.in_(ours) if in_many else here.correlate(Workspace).exists()
    # In `system`, a role other than those of the platform permits reading at most.
    return has_role if Role.VIEWER in roles else and_(has_role, Workspace.name != PLATFORM)


def _platform_bindings(roles: list[Role]) -> Select[object]:
    binding, platform = aliased(RoleBinding), aliased(Workspace)
    return (
        select(binding.id)
        .join(platform, platform.id == binding.workspace_id)
        .where(
            platform.name == PLATFORM,
            is_active(platform),
            _is_ours(binding),
            _has_one_of(binding, roles),
        )
    )


def _roles_in(session: Session, actor: Actor, workspace: str) -> list[str]:
    query = (
        select(RoleBinding.role)
        .join(Workspace, Workspace.id == RoleBinding.workspace_id)
        .where(Workspace.name == workspace, is_active(), _is_ours(RoleBinding))
        .distinct()
        .order_by(RoleBinding.role)
    )
    return list(session.scalars(query, actor.parameters))


def _has_one_of(binding: type[RoleBinding], roles: list[Role]) -> ColumnElement[bool]:
    return binding.role.in_([literal_column(f"'{role}'") for role in roles])


def _is_ours(binding: type[RoleBinding]) -> ColumnElement[bool]:
    """A condition: the binding is in force, and one of the actor's. Nothing equals an email that is null."""
    is_named = binding.principal == any_(_IDENTITIES)
    return and_(binding.revoked_at.is_(None), or_(is_named, folded_principal(binding) == _EMAIL))
