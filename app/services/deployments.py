"""Deployments: versions of long-lived servers, each created from a version of a configuration."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from app import clock
from app.access.authorize import Actor
from app.clock import database_now, seconds_from_now
from app.errors import WrongState
from app.lifecycle import DEPLOYMENT_MOVES, DeploymentStatus
from app.models import Deployment, Workspace
from app.models.columns import without_documents
from app.models.workspace import is_active
from app.services.deployment_configs import config_to_use
from app.services.projects import inherited_project, require_project
from app.services.versions import insert_first_version, lock_versions
from app.services.workspaces import writable_workspace

HISTORY_LIMIT = 100
"""Entries kept in a status history: months for a healthy deployment, and a small row for a flapping one."""

_REMOVED_PER_SWEEP = 200  # Bounds the transaction; the next sweep removes the rest.

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
    """Create version 1 of a deployment, in status CREATED, for the runtime to start.

    Without `config_version` it uses the newest version of the configuration.
    Raises BadRequest for a missing configuration, Unprocessable for a missing project, NameTaken while any
    version of `name` exists.
    """
    workspace_row = writable_workspace(session, actor, workspace)
    if project is not None:
        require_project(session, workspace_row, project)
    used = config_to_use(session, workspace_row, config, config_version)
    deployment = Deployment(
        workspace_id=workspace_row.id,
        name=name,
        entity_version=1,
        project=project,
        config=config,
        config_version=used.entity_version,
        **_new_status(DeploymentStatus.CREATED, "Deployment created"),
        created_by=actor.id,
        updated_by=actor.id,
    )
    return insert_first_version(session, deployment, workspace_row)


def create_version(
    session: Session, actor: Actor, workspace: str, name: str, *, config: str, config_version: int | None
) -> Deployment:
    """Create the next version of a deployment, PENDING until the runtime can replace the last one by it.

    Raises NotFound if there is no earlier version, WrongState while the deployment is being deleted,
    BadRequest for a missing configuration.
    """
    workspace_row = writable_workspace(session, actor, workspace)
    used = config_to_use(session, workspace_row, config, config_version)
    latest = lock_versions(session, Deployment, workspace_row, name)[-1]
    if latest.status in _ENDING:
        raise WrongState(
            f"Deployment '{workspace}/{name}' is {latest.status}. "
            "Delete it again once it is DELETED, then create it again."
        )
    deployment = Deployment(
        workspace_id=workspace_row.id,
        name=name,
        entity_version=latest.entity_version + 1,
        project=inherited_project(session, workspace_row, latest.project),
        config=config,
        config_version=used.entity_version,
        **_new_status(DeploymentStatus.PENDING, "Deployment updated"),
        created_by=actor.id,
        updated_by=actor.id,
    )
    session.add(deployment)
    session.flush()  # The caller reads id and times, and publishes a message with the id.
    return deployment


def delete_deployment(
    session: Session, actor: Actor, workspace: str, name: str, *, version: int | None = None
) -> list[Deployment] | None:
    """Request the deletion of a deployment, or of one version of it; returns the rows that the runtime has to stop.

    None if all of them were DELETED before: nothing of them runs, and the rows are removed now. Raises NotFound.
    """
    workspace_row = writable_workspace(session, actor, workspace)
    rows = lock_versions(session, Deployment, workspace_row, name, version)
    if all(is_gone(row) for row in rows):
        session.execute(delete(Deployment).where(Deployment.id.in_([row.id for row in rows])))
        return None
    for row in rows:
        _request_deletion(session, row)
    return [row for row in rows if row.status is DeploymentStatus.DELETING]


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
    """Set the reported status of a deployment, of the newest version unless `version` names another.

    Raises NotFound, and WrongState as `move` does and for a deployment that the runtime supervises.
    """
    workspace_row = writable_workspace(session, actor, workspace)
    deployment = lock_versions(session, Deployment, workspace_row, name, version)[-1]
    if deployment.host is not None:
        # A report of DELETED would remove the row while its server is running.
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
    """Request the deletion of the older versions that meet the conditions `which`; returns them.

    Publishes no message.
    """
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
        .with_for_update(skip_locked=True)  # a row that is locked now follows at the next renewal
    )
    older = list(session.scalars(query.execution_options(populate_existing=True)))
    for one in older:
        _request_deletion(session, one, f"Replaced by version {deployment.entity_version}")
    return older


def remove_gone(session: Session, *, after_s: float) -> int:
    """Remove the versions that have been DELETED for `after_s` seconds; returns their number.

    Skips workspaces that are being deleted: there the cascade removes and counts the rows. Does not commit.
    """
    due = (
        select(Deployment.id)
        .join(Workspace, Workspace.id == Deployment.workspace_id)
        .where(
            Deployment.status == DeploymentStatus.DELETED,
            Deployment.host.is_(None),
            Deployment.updated_at <= seconds_from_now(-after_s),
            is_active(),
        )
        .order_by(Deployment.updated_at)
        .limit(_REMOVED_PER_SWEEP)
        .with_for_update(of=Deployment, skip_locked=True)  # two sweeps share the work
    )
    ids = session.scalars(due).all()
    if ids:
        session.execute(delete(Deployment).where(Deployment.id.in_(ids)))
    return len(ids)


def is_gone(deployment: Deployment) -> bool:
    """Whether it is DELETED and its host has seen that nothing of it runs."""
    return deployment.status is DeploymentStatus.DELETED and deployment.host is None


def request_stop(session: Session, deployment_id: UUID) -> tuple[Deployment | None, bool]:
    """Request the deletion of a deployment in a workspace of any state: its row, or None, and whether that changed it.

    Idempotent. Does not commit and publishes no message.
    """
    options = without_documents(Deployment)
    deployment = session.get(
        Deployment, deployment_id, with_for_update=True, populate_existing=True, options=options
    )
    if deployment is None:
        return None, False
    before = deployment.status
    _request_deletion(session, deployment)
    return deployment, deployment.status is not before


def move(session: Session, deployment: Deployment, to: DeploymentStatus, message: str) -> None:
    """Change the status, as `DEPLOYMENT_MOVES` allows, and append it to the history.

    Repeating the current status changes only the message. Raises WrongState for any other move, and if the status
    has changed since the row was read.
    """
    before = deployment.status
    if to is not before and to not in DEPLOYMENT_MOVES[before]:
        raise WrongState(_explain_refusal(before, to))
    changed = session.scalars(
        update(Deployment)
        .where(Deployment.id == deployment.id, Deployment.status == before)
        .values(
            status=to,
            status_message=message,
            status_history=_extended(deployment.status_history, to, message),
            updated_at=database_now(),
        )
        .returning(Deployment),
        execution_options={"populate_existing": True},
    )
    if changed.one_or_none() is None:
        raise WrongState(f"Deployment '{deployment.name}' changed meanwhile. Read its status and try again.")


def _request_deletion(
    session: Session, deployment: Deployment, message: str = "Deployment deletion requested"
) -> None:
    if deployment.status not in _ENDING:
        move(session, deployment, DeploymentStatus.DELETING, message)
    if deployment.status is DeploymentStatus.DELETING and deployment.host is None:
        # Nothing of it runs on any host, so no runtime worker has to confirm its end.
        move(session, deployment, DeploymentStatus.DELETED, "Deployment deleted")


def _explain_refusal(before: DeploymentStatus, to: DeploymentStatus) -> str:
    if before is DeploymentStatus.DELETING:
        return "Deployment is marked for deletion (DELETING). Only transition to DELETED is allowed."
    if before is DeploymentStatus.DELETED:
        return "Deployment is DELETED; its status is final. Delete it again to remove it."
    return f"Deployment cannot move from {before} to {to}; request its deletion first."


def _new_status(status: DeploymentStatus, message: str) -> dict[str, Any]:
    return {"status": status, "status_message": message, "status_history": _extended([], status, message)}


def _extended(history: list[dict[str, Any]], status: DeploymentStatus, message: str) -> list[dict[str, Any]]:
    """The history with one more entry; consecutive entries of one status are merged and keep the last message."""
    entry = {"timestamp": clock.now().isoformat(), "status": status.value, "status_message": message}
    if history and history[-1]["status"] == status:
        return [*history[:-1], {**entry, "timestamp": history[-1]["timestamp"]}]
    return [*history, entry][-HISTORY_LIMIT:]
