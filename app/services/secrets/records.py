"""Secrets: creating them, changing them, and reading their values."""

from dataclasses import replace
from functools import cache

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session, undefer
from uuid_utils.compat import uuid7

from app import clock
from app.access import audit
from app.access.authorize import Access, Actor, require_authentic
from app.access.permissions import Permission
from app.config import Settings
from app.db import insert_unique
from app.errors import Forbidden, NameTaken, NotFound
from app.logs import get_logger
from app.models import Secret, Workspace
from app.models.audit import AuditEvent
from app.services.secrets.encryption import Keyring, Sealed
from app.services.workspaces import is_named, readable_workspace, writable_workspace

log = get_logger(__name__)


def create_secret(
    session: Session,
    settings: Settings,
    actor: Actor,
    workspace: str,
    name: str,
    *,
    value: str,
    description: str | None,
) -> Secret:
    """Create a secret. Raises NameTaken, and SecretsDisabled without keys."""
    workspace_row = writable_workspace(session, actor, workspace)
    secret_id = uuid7()
    sealed = Keyring.read(settings).seal(value, workspace_id=workspace_row.id, secret_id=secret_id)
    secret = Secret(
        id=secret_id,
        workspace_id=workspace_row.id,
        name=name,
        description=description,
        key_id=sealed.key_id,
        ciphertext=sealed.ciphertext,
        created_by=actor.id,
        updated_by=actor.id,
    )
    created = insert_unique(session, secret, taken=NameTaken(f"Secret '{workspace}/{name}' already exists"))
    _record(session, actor, AuditEvent.SECRET_CREATED, workspace_row, name)
    return created


def readable_secret(session: Session, actor: Actor, workspace: str, name: str) -> Secret:
    """The secret of that name, without its value. Raises NotFound, and as `readable_workspace` does."""
    return _found(session, actor, workspace, name, _named(actor.access))


def update_secret(
    session: Session,
    settings: Settings,
    actor: Actor,
    workspace: str,
    name: str,
    *,
    value: str | None,
    description: str | None,
) -> Secret:
    """Set the value, the description or both; None keeps it. Raises NotFound, and SecretsDisabled without keys."""
    workspace_row = writable_workspace(session, actor, workspace)
    secret = _locked(session, workspace_row, name)
    if value is not None:
        sealed = Keyring.read(settings).seal(value, workspace_id=workspace_row.id, secret_id=secret.id)
        secret.key_id, secret.ciphertext = sealed.key_id, sealed.ciphertext
    if description is not None:
        secret.description = description
    if session.is_modified(secret):
        secret.updated_at, secret.updated_by = clock.now(), actor.id
        is_value_new = True if value is not None else None
        _record(session, actor, AuditEvent.SECRET_UPDATED, workspace_row, name, value=is_value_new)
    return secret


def delete_secret(session: Session, actor: Actor, workspace: str, name: str) -> None:
    """Delete a secret with its value. Raises NotFound."""
    workspace_row = writable_workspace(session, actor, workspace)
    session.delete(_locked(session, workspace_row, name))
    _record(session, actor, AuditEvent.SECRET_DELETED, workspace_row, name)


def access_secret(session: Session, settings: Settings, actor: Actor, workspace: str, name: str) -> str:
    """The value of a secret, for a service of the platform, or for anybody while authentication is off.

    A service that acts for a user reads what that user may know of. Raises Forbidden for everybody else, NotFound,
    and SecretsDisabled and SecretUnreadable.
    """
    principal = actor.principal
    if settings.auth_enabled and not (principal.is_service or principal.service):
        require_authentic(session, actor)
        raise Forbidden("Forbidden")
    reader = replace(actor, permission=Permission.SECRETS_READ)
    query = _named(reader.access).options(undefer(Secret.ciphertext))
    secret = _found(session, reader, workspace, name, query)
    value = Keyring.read(settings).open(
        Sealed(secret.key_id, secret.ciphertext),
        workspace_id=secret.workspace_id,
        secret_id=secret.id,
        name=f"{workspace}/{name}",
    )
    log.info("secret.accessed", secret_id=str(secret.id), actor=actor.id, service=principal.service)
    return value


@cache
def _named(access: Access) -> Select[Secret]:
    """The secret of the parameter `secret_name`, in a workspace where the actor has its permission: one statement."""
    query = select(Secret).join(Workspace, Workspace.id == Secret.workspace_id)
    return query.where(*is_named(access), Secret.name == bindparam("secret_name"))


def _found(session: Session, actor: Actor, workspace: str, name: str, query: Select[Secret]) -> Secret:
    parameters = {**actor.parameters, "workspace": workspace, "secret_name": name}
    secret = session.scalars(query, parameters).one_or_none()
    if secret is None:
        readable_workspace(session, actor, workspace)  # whether it is the workspace that is not there
        raise _not_found(workspace, name)
    return secret


def _locked(session: Session, workspace: Workspace, name: str) -> Secret:
    """The secret, locked for a change: a concurrent DELETE decides whether there is still one."""
    query = select(Secret).where(Secret.workspace_id == workspace.id, Secret.name == name).with_for_update()
    secret = session.scalars(query).one_or_none()
    if secret is None:
        raise _not_found(workspace.name, name)
    return secret


def _not_found(workspace: str, name: str) -> NotFound:
    return NotFound(f"Secret {workspace}/{name} not found")


def _record(
    session: Session, actor: Actor, event: AuditEvent, workspace: Workspace, name: str, **detail: bool | None
) -> None:
    audit.record(session, actor, event, workspace=(workspace.id, workspace.name), subject=name, **detail)
