"""Deployments: versions of long-lived servers, each made from a version of a configuration."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from app import clock
from app.access.authorize import Actor
from app.db import insert_unique
from app.errors import NameTaken, NotFound, WrongState
from app.lifecycle import DEPLOYMENT_MOVES, DeploymentStatus, WorkspaceState
from app.models import Deployment, Workspace
from app.services.deployment_configs import config_to_use
from app.services.projects import require_project
from app.services.workspaces import writable_workspace

HISTORY_LIMIT = 100
"""Entries of a status history: months of a healthy life, and still one small row for one that flaps."""

_REMOVED_AT_ONCE = 200  # Bounds the transaction; the next sweep removes the rest.

_ENDING = (DeploymentStatus.DELETING, DeploymentStatus.DELETED)


def create_deployment(
    session: Session,
    actor: Actor,
    workspace: str,
    name: str,
    *,
    config: str,
    config_version: int | None,
    project: str | None,
) -> Deployment:
    """Make version 1 of a deployment, CREATED, for the runtime to take up.

    Without `config_version` the newest version of the configuration is meant.
    Raises BadRequest for a configuration that does not exist, Unprocessable for such a project,
    NameTaken while any version of `name` exists.
    """
    home = writable_workspace(session, actor, workspace)
    if project is not None:
        require_project(session, home, project)
    used = config_to_use(session, home, config, config_version)
    taken = NameTaken(f"Deployment with workspace '{workspace}' and name '{name}' already exists")
    # The unique index guards version 1 alone, and that one may have been removed from under its successors.
    if versions_of(session, home.id, name):
        raise taken
    deployment = Deployment(
        workspace_id=home.id,
        name=name,
        entity_version=1,
        project=project,
        config=config,
        config_version=used.entity_version,
        **_new_status(DeploymentStatus.CREATED, "Deployment created"),
        created_by=actor.id,
        updated_by=actor.id,
    )
    insert_unique(session, deployment, taken=taken)
    return deployment


def create_version(
    session: Session, actor: Actor, workspace: str, name: str, *, config: str, config_version: int | None
) -> Deployment:
    """Make the next version of a deployment, PENDING until the runtime can put it in place of the last one.

    Raises NotFound without a version before it, WrongState while the deployment is being deleted,
    BadRequest for a configuration that does not exist.
    """
    home = writable_workspace(session, actor, workspace)
    used = config_to_use(session, home, config, config_version)
    latest = _version(session, home, name, None)
    if latest.status in _ENDING:
        raise WrongState(
            f"Deployment '{workspace}/{name}' is {latest.status}. "
            "Delete it again once it is DELETED, then create it anew."
        )
    deployment = Deployment(
        workspace_id=home.id,
        name=name,
        entity_version=latest.entity_version + 1,
        project=latest.project,
        config=config,
        config_version=used.entity_version,
        **_new_status(DeploymentStatus.PENDING, "Deployment updated"),
        created_by=actor.id,
        updated_by=actor.id,
    )
    session.add(deployment)
    session.flush()  # The caller shows the row and rings with its id.
    return deployment


def versions_of(session: Session, workspace_id: UUID, name: str) -> list[Deployment]:
    """Every version of a deployment, oldest first."""
    query = select(Deployment).where(Deployment.workspace_id == workspace_id, Deployment.name == name)
    query = query.order_by(Deployment.entity_version)
    # Whoever locked the rows after reading them must see what they are now.
    return list(session.scalars(query.execution_options(populate_existing=True)))


def delete_deployment(
    session: Session, actor: Actor, workspace: str, name: str, *, version: int | None = None
) -> list[Deployment] | None:
    """Ask for the end of a deployment, or of one version of it; those that the runtime now has to stop.

    None when every version was DELETED before: nothing of them runs, and the rows are gone now.
    Raises NotFound.
    """
    home = writable_workspace(session, actor, workspace)
    doomed = _locked_versions(session, home, name)
    if version is not None:
        doomed = [_version(session, home, name, version)]
    if all(is_gone(one) for one in doomed):
        session.execute(delete(Deployment).where(Deployment.id.in_([one.id for one in doomed])))
        return None
    for one in doomed:
        _towards_deleted(session, one)
    return [one for one in doomed if one.status is DeploymentStatus.DELETING]


def report_status(
    session: Session,
    actor: Actor,
    workspace: str,
    name: str,
    *,
    version: int | None,
    status: DeploymentStatus,
    message: str,
    model_provider_id: str | None,
) -> Deployment:
    """Record what became of a deployment, of its newest version unless one is named.

    Raises NotFound, and WrongState as `move` does.
    """
    home = writable_workspace(session, actor, workspace)
    deployment = _version(session, home, name, version)
    if deployment.host is not None:
        # Else a report of DELETED would let the row go while its server lives.
        raise WrongState(
            f"Deployment '{workspace}/{name}' version {deployment.entity_version} is supervised by the runtime on "
            f"'{deployment.host}', which reports its status itself."
        )
    move(session, deployment, status, message)
    deployment.updated_by = actor.id
    if model_provider_id is not None:
        deployment.model_provider_id = model_provider_id
    return deployment


def replace_older(session: Session, deployment: Deployment, *which: ColumnElement[bool]) -> list[Deployment]:
    """Ask for the end of the versions before this one that it takes the place of; those asked. Does not ring."""
    query = (
        select(Deployment)
        .where(
            Deployment.workspace_id == deployment.workspace_id,
            Deployment.name == deployment.name,
            Deployment.entity_version < deployment.entity_version,
            Deployment.status.not_in(_ENDING),
            *which,
        )
        .order_by(Deployment.entity_version)
        .with_for_update(skip_locked=True)  # one that is just being changed is asked at the next renewal
    )
    older = list(session.scalars(query.execution_options(populate_existing=True)))
    for one in older:
        _towards_deleted(session, one, f"Replaced by version {deployment.entity_version}")
    return older


def remove_gone(session: Session, *, until: datetime) -> int:
    """Remove the versions that have been DELETED since `until` or longer, as a repeated DELETE does; how many.

    Not in a workspace that is being deleted: there the cascade removes and counts them. Does not commit.
    """
    due = (
        select(Deployment.id)
        .join(Workspace, Workspace.id == Deployment.workspace_id)
        .where(
            Deployment.status == DeploymentStatus.DELETED,
            Deployment.host.is_(None),
            Deployment.updated_at <= until,
            Workspace.state == WorkspaceState.ACTIVE,
        )
        .order_by(Deployment.updated_at)
        .limit(_REMOVED_AT_ONCE)
        .with_for_update(of=Deployment, skip_locked=True)  # two sweeps share the work
    )
    ids = session.scalars(due).all()
    session.execute(delete(Deployment).where(Deployment.id.in_(ids)))
    return len(ids)


def is_gone(deployment: Deployment) -> bool:
    """Whether nothing of it runs, as its host has seen."""
    return deployment.status is DeploymentStatus.DELETED and deployment.host is None


def request_stop(session: Session, deployment_id: UUID) -> Deployment | None:
    """Move a deployment towards DELETED in a workspace of any state; the row as it is now, None if it is gone.

    Idempotent. Does not commit, and does not ring.
    """
    deployment = session.get(Deployment, deployment_id, with_for_update=True, populate_existing=True)
    if deployment is None:
        return None
    _towards_deleted(session, deployment)
    return deployment


def move(session: Session, deployment: Deployment, to: DeploymentStatus, message: str) -> None:
    """Change the status, as `DEPLOYMENT_MOVES` allows, and remember it in the history.

    The present status again only changes the message. Raises WrongState for any other move, and when the
    row has moved since it was read.
    """
    before = deployment.status
    if to is not before and to not in DEPLOYMENT_MOVES[before]:
        raise WrongState(_why_not(before, to))
    changed = session.execute(
        update(Deployment)
        .where(Deployment.id == deployment.id, Deployment.status == before)
        .values(
            status=to,
            status_message=message,
            status_history=_extended(deployment.status_history, to, message),
            updated_at=clock.now(),
        )
        .returning(Deployment.id)
    )
    if changed.one_or_none() is None:
        raise WrongState(f"Deployment '{deployment.name}' changed meanwhile. Read its status and try again.")


def _locked_versions(session: Session, home: Workspace, name: str) -> list[Deployment]:
    query = select(Deployment.id).where(Deployment.workspace_id == home.id, Deployment.name == name)
    # The oldest row first: whoever adds or removes versions of this name meets there, and then reads again
    # what another may have added meanwhile.
    session.execute(query.order_by(Deployment.entity_version).with_for_update())
    found = versions_of(session, home.id, name)
    if not found:
        raise NotFound(f"Deployment '{home.name}/{name}' not found")
    return found


def _version(session: Session, home: Workspace, name: str, version: int | None) -> Deployment:
    found = _locked_versions(session, home, name)
    if version is None:
        return found[-1]
    for deployment in found:
        if deployment.entity_version == version:
            return deployment
    raise NotFound(f"Deployment '{home.name}/{name}' version '{version}' not found")


def _towards_deleted(
    session: Session, deployment: Deployment, why: str = "Deployment deletion requested"
) -> None:
    if deployment.status not in _ENDING:
        move(session, deployment, DeploymentStatus.DELETING, why)
    if deployment.status is DeploymentStatus.DELETING and deployment.host is None:
        # Nothing of it runs anywhere, so nobody has to confirm, and nobody must be waited for.
        move(session, deployment, DeploymentStatus.DELETED, "Deployment deleted")


def _why_not(before: DeploymentStatus, to: DeploymentStatus) -> str:
    if before is DeploymentStatus.DELETING:
        return "Deployment is marked for deletion (DELETING). Only transition to DELETED is allowed."
    if before is DeploymentStatus.DELETED:
        return "Deployment is DELETED; its status is final. Delete it again to remove it."
    return f"Deployment cannot move from {before} to {to}; request its deletion first."


def _new_status(status: DeploymentStatus, message: str) -> dict[str, Any]:
    return {"status": status, "status_message": message, "status_history": _extended([], status, message)}


def _extended(history: list[dict[str, Any]], status: DeploymentStatus, message: str) -> list[dict[str, Any]]:
    """The history with one more entry; neighbours of one status are one stay, told by its last message."""
    entry = {"timestamp": clock.now().isoformat(), "status": status.value, "status_message": message}
    if history and history[-1]["status"] == status:
        return [*history[:-1], {**entry, "timestamp": history[-1]["timestamp"]}]
    return [*history, entry][-HISTORY_LIMIT:]
