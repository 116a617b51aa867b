"""Deployment configurations: immutable versions, kept while a deployment refers to them."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.errors import BadRequest, Conflict
from app.lifecycle import DeploymentStatus
from app.models import Deployment, DeploymentConfig, Workspace
from app.services.projects import inherited_project, require_project
from app.services.versions import insert_first_version, lock_versions
from app.services.workspaces import writable_workspace


def create_config(
    session: Session, actor: Actor, workspace: str, name: str, *, project: str | None, **content: Any
) -> DeploymentConfig:
    """Create version 1 of a configuration; `content` are its columns.

    Raises NameTaken while any version exists, Unprocessable for a missing project.
    """
    workspace_row = writable_workspace(session, actor, workspace)
    if project is not None:
        require_project(session, workspace_row, project)
    config = DeploymentConfig(
        workspace_id=workspace_row.id,
        name=name,
        entity_version=1,
        project=project,
        **content,
        created_by=actor.id,
        updated_by=actor.id,
    )
    return insert_first_version(session, config, workspace_row)


def create_config_version(
    session: Session, actor: Actor, workspace: str, name: str, **content: Any
) -> DeploymentConfig:
    """Create the next version of a configuration; `content` replaces that of the last one. Raises NotFound."""
    workspace_row = writable_workspace(session, actor, workspace)
    latest = lock_versions(session, DeploymentConfig, workspace_row, name)[-1]
    config = DeploymentConfig(
        workspace_id=workspace_row.id,
        name=name,
        entity_version=latest.entity_version + 1,
        project=inherited_project(session, workspace_row, latest.project),
        **content,
        created_by=actor.id,
        updated_by=actor.id,
    )
    session.add(config)
    session.flush()  # The caller reads id and times.
    return config


def delete_config(
    session: Session, actor: Actor, workspace: str, name: str, *, version: int | None = None
) -> None:
    """Delete a configuration, or one version of it.

    Raises NotFound, and Conflict while a deployment that is not DELETED refers to it.
    """
    workspace_row = writable_workspace(session, actor, workspace)
    configs = lock_versions(session, DeploymentConfig, workspace_row, name, version)
    if count := _dependents(session, workspace_row.id, name, version):
        raise Conflict(
            f"Cannot delete ModelDeploymentConfig '{_label(workspace, name, version)}' because {count} "
            "ModelDeployment(s) still reference it and are not in DELETED status. "
            "Delete the dependent deployments first."
        )
    session.execute(delete(DeploymentConfig).where(DeploymentConfig.id.in_([one.id for one in configs])))


def config_to_use(session: Session, workspace: Workspace, name: str, version: int | None) -> DeploymentConfig:
    """The given version, or the newest, locked against deletion until the transaction ends.

    Raises BadRequest if there is none, because the body of the request names it.
    """
    query = select(DeploymentConfig).where(
        DeploymentConfig.workspace_id == workspace.id, DeploymentConfig.name == name
    )
    if version is not None:
        query = query.where(DeploymentConfig.entity_version == version)
    query = query.order_by(DeploymentConfig.entity_version.desc()).limit(1)
    # KEY SHARE: a deletion of the configuration either waits and then counts our row, or has already won.
    found = session.scalars(query.with_for_update(read=True, key_share=True)).one_or_none()
    if found is None:
        raise BadRequest(f"Deployment config '{_label(workspace.name, name, version)}' not found")
    return found


def requires_port(port: int | None) -> ColumnElement[bool]:
    """A condition of a query of deployments: the configuration of the deployment sets that port."""
    return exists().where(
        DeploymentConfig.workspace_id == Deployment.workspace_id,
        DeploymentConfig.name == Deployment.config,
        DeploymentConfig.entity_version == Deployment.config_version,
        # As text: the backend reports a value that is no number.
        DeploymentConfig.executor_config["override_config", "port"].as_string() == str(port),
    )


def _label(workspace: str, name: str, version: int | None) -> str:
    # The quotation marks around it are closed and opened again: 'ml-team/small' version '2'
    return f"{workspace}/{name}" + (f"' version '{version}" if version is not None else "")


def _dependents(session: Session, workspace_id: UUID, config: str, version: int | None) -> int:
    query = select(func.count(Deployment.name.distinct())).where(
        Deployment.workspace_id == workspace_id,
        Deployment.config == config,
        Deployment.status != DeploymentStatus.DELETED,
    )
    if version is not None:
        query = query.where(Deployment.config_version == version)
    return session.scalars(query).one()
