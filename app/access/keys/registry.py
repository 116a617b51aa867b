"""Access keys in the database: making, listing, suspending and revoking them. Each write is in the audit log."""

import secrets
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased

from app.access.audit import record
from app.access.authorize import Access, Actor, is_platform_admin, permitted_platform_wide
from app.access.principal import SERVICE_ACCOUNT_PREFIX
from app.clock import database_now, seconds_from_now
from app.errors import Forbidden, NotFound, WrongState
from app.lifecycle import AccessKeyHolder, AccessKeyStatus
from app.models import AccessKey
from app.models.access_key import key_status
from app.models.audit import AuditEvent

_PRUNED_AT_ONCE = 1000


@dataclass(frozen=True)
class NewKey:
    """What is asked for."""

    name: str | None
    description: str | None
    life_s: float | None
    """None: it never expires."""
    service_account: str | None = None
    """The id of the service account that it is for, without the prefix."""


def create_key(session: Session, actor: Actor, new: NewKey) -> AccessKey:
    """Make an access key of the actor's, or of a service account, for which the actor has to be a PlatformAdmin.

    Raises Forbidden, also for callers who are no people: a key that could make keys would outlive its revocation; and
    for scopes that are not all: a key has none, and could do what they keep from the caller.
    """
    caller = actor.principal
    if caller.access_key:
        raise Forbidden("Forbidden: an access key cannot make access keys; log in to make one.")
    if caller.is_service or caller.is_service_account:
        raise Forbidden("Forbidden: only people make access keys; an administrator makes those of services.")
    is_for_service = new.service_account is not None
    is_narrowed = not all(caller.has_scope_for("platform", action) for action in ("read", "write"))
    values = {
        **actor.parameters,
        "new_jti": f"ak_{secrets.token_hex(16)}",
        "new_holder": AccessKeyHolder.SERVICE_ACCOUNT if is_for_service else AccessKeyHolder.USER,
        "new_principal": f"{SERVICE_ACCOUNT_PREFIX}{new.service_account}" if is_for_service else caller.id,
        "new_email": "" if is_for_service else caller.email,
        "new_name": new.name,
        "new_description": new.description,
        "new_life_s": new.life_s,
        "actor_id": caller.id,
    }
    # Scopes do not bind administrators.
    creation = _creation(actor.access, by_admin=is_for_service or is_narrowed)
    key = session.scalars(creation, values).one_or_none()
    if key is None and is_for_service:
        raise Forbidden("Only PlatformAdmin can create service-bound Scoped Access Keys")
    if key is None:
        raise Forbidden(
            "Forbidden: a token with scopes makes no access keys, which have none; log in without scopes, or with "
            "platform:read and platform:write."
        )
    until = key.expires_at and key.expires_at.isoformat()
    record(
        session,
        actor,
        AuditEvent.ACCESS_KEY_CREATED,
        subject=key.jti,
        principal=key.principal,
        expires_at=until,
    )
    return key


@cache
def _creation(access: Access, *, by_admin: bool) -> Select[AccessKey]:
    """Creates a key, unless the actor may not at that moment."""
    is_permitted = is_platform_admin(access) if by_admin else permitted_platform_wide(access)
    values: dict[str, ColumnElement[Any]] = {
        "jti": bindparam("new_jti", type_=Text),
        "holder": bindparam("new_holder", type_=Text),
        "principal": bindparam("new_principal", type_=Text),
        "email": bindparam("new_email", type_=Text),
        "name": bindparam("new_name", type_=Text),
        "description": bindparam("new_description", type_=Text),
        "created_at": database_now(),
        "created_by": bindparam("actor_id", type_=Text),
        "expires_at": seconds_from_now(bindparam("new_life_s", type_=Float)),  # null if that is null
    }
    created = (
        insert(AccessKey)
        .from_select(list(values), select(*values.values()).where(is_permitted), include_defaults=False)
        .returning(AccessKey)
        .cte("created")
    )
    return select(aliased(AccessKey, created))


def list_keys(
    session: Session, actor: Actor, *, page: int, page_size: int
) -> tuple[list[tuple[AccessKey, str]], bool]:
    """A page of the keys that the actor has made for itself, the newest first, with their status; whether more follow.

    PlatformAdmins also find those of all service accounts.
    """
    which = {
        **actor.parameters,
        "holding": actor.id,
        "limited": page_size + 1,
        "skipped": (page - 1) * page_size,
    }
    found = [(key, status) for key, status in session.execute(_listing(actor.access), which)]
    return found[:page_size], len(found) > page_size


@cache
def _listing(access: Access) -> Select[AccessKey, str]:
    of_services = and_(AccessKey.holder == AccessKeyHolder.SERVICE_ACCOUNT, is_platform_admin(access))
    return (
        select(AccessKey, key_status())
        .where(permitted_platform_wide(access), or_(_is_its_own(), of_services))
        .order_by(AccessKey.created_at.desc(), AccessKey.jti)
        .limit(bindparam("limited", type_=Integer))
        .offset(bindparam("skipped", type_=Integer))
    )


def revoke_key(session: Session, actor: Actor, jti: str) -> bool:
    """End a key for good; False if that was done before. Raises NotFound."""
    key, status = _locked_key(session, actor, jti)
    if status is AccessKeyStatus.REVOKED:
        return False
    _change(session, actor, key, AuditEvent.ACCESS_KEY_REVOKED, revoked_at=database_now())
    return True


def suspend_key(session: Session, actor: Actor, jti: str) -> tuple[AccessKeyStatus, bool]:
    """Refuse a key until it is unsuspended: its status from now on, and whether that was changed.

    Raises NotFound, WrongState for one that is revoked. One that has expired stays as it is.
    """
    key, status = _locked_key(session, actor, jti)
    _require_not_revoked(jti, status, "suspended")
    if status is not AccessKeyStatus.ACTIVE:
        return status, False
    _change(session, actor, key, AuditEvent.ACCESS_KEY_SUSPENDED, suspended_at=database_now())
    return AccessKeyStatus.SUSPENDED, True


def unsuspend_key(session: Session, actor: Actor, jti: str) -> tuple[AccessKeyStatus, bool]:
    """Accept a suspended key again. Returns and raises as `suspend_key`."""
    key, status = _locked_key(session, actor, jti)
    _require_not_revoked(jti, status, "unsuspended")
    if status is not AccessKeyStatus.SUSPENDED:
        return status, False
    _change(session, actor, key, AuditEvent.ACCESS_KEY_UNSUSPENDED, suspended_at=None)
    return AccessKeyStatus.ACTIVE, True


def _change(session: Session, actor: Actor, key: AccessKey, event: AuditEvent, **values: Any) -> None:
    session.execute(update(AccessKey).where(AccessKey.jti == key.jti).values(values))
    record(session, actor, event, subject=key.jti, principal=key.principal)


def _require_not_revoked(jti: str, status: AccessKeyStatus, what: str) -> None:
    if status is AccessKeyStatus.REVOKED:
        raise WrongState(f"Revoked Scoped Access Key {jti} cannot be {what}")


def _locked_key(session: Session, actor: Actor, jti: str) -> tuple[AccessKey, AccessKeyStatus]:
    """The key, if the actor may manage it, locked until the transaction ends, and its status."""
    which = {**actor.parameters, "holding": actor.id, "jti": jti}
    found = session.execute(_locking(actor.access), which).one_or_none()
    if found is None:
        raise NotFound(f"Scoped Access Key {jti} was not found")
    return found[0], AccessKeyStatus(found[1])


@cache
def _locking(access: Access) -> Select[AccessKey, str]:
    """A user manages the user's own keys, a PlatformAdmin all: one of somebody who has left must be revocable."""
    is_manager = or_(_is_its_own(), is_platform_admin(access))
    return (
        select(AccessKey, key_status())
        .where(AccessKey.jti == bindparam("jti", type_=Text), permitted_platform_wide(access), is_manager)
        .with_for_update(of=AccessKey)
        .execution_options(populate_existing=True)
    )


def _is_its_own() -> ColumnElement[bool]:
    """A condition: the `AccessKey` of the surrounding query is that of the user whom the parameter `holding` names."""
    return and_(
        AccessKey.holder == AccessKeyHolder.USER, AccessKey.principal == bindparam("holding", type_=Text)
    )


def prune_keys(session: Session, *, older_than_s: float) -> int:
    """Forget some of the keys whose end was longer ago than that; how many. The audit log keeps that they were."""
    ended_at = func.least(AccessKey.revoked_at, AccessKey.expires_at)
    old = (
        select(AccessKey.jti)
        .where(ended_at < seconds_from_now(-older_than_s))
        .order_by(ended_at)
        .limit(_PRUNED_AT_ONCE)
        .with_for_update(skip_locked=True)  # two sweeps share the work instead of waiting for each other
        .cte(
            "old"
        )  # a subquery might be run once per row, and find others each time: those it has deleted are gone
    )
    forgetting = delete(AccessKey).where(AccessKey.jti == old.c.jti).returning(AccessKey.jti)
    return len(session.scalars(forgetting).all())
