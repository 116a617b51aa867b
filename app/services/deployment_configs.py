"""Deployment configurations: immutable versions, kept as long as a deployment refers to them."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.db import insert_unique
from app.errors import BadRequest, Conflict, NameTaken, NotFound
from app.lifecycle import DeploymentStatus
from app.models import Deployment, DeploymentConfig, Workspace
from app.services.projects import require_project
from app.services.workspaces import writable_workspace


def create_config(
    session: Session, actor: Actor, workspace: str, name: str, *, project: str | None, **content: Any
) -> DeploymentConfig:
    """Make version 1 of a configuration; `content` are its columns.

    Raises NameTaken while any version exists, Unprocessable for a missing project.
    """
    home = writable_workspace(session, actor, workspace)
    if project is not None:
        require_project(session, home, project)
    taken = NameTaken(f"Deployment config with workspace '{workspace}' and name '{name}' already exists")
    # The unique index guards version 1 alone, and that one may have been removed from under its successors.
    if config_versions(session, home.id, name):
        raise taken
    config = DeploymentConfig(
        workspace_id=home.id,
        name=name,
        entity_version=1,
        project=project,
        **content,
        created_by=actor.id,
        updated_by=actor.id,
    )
    insert_unique(session, config, taken=taken)
    return config


def create_config_version(
    session: Session, actor: Actor, workspace: str, name: str, **content: Any
) -> DeploymentConfig:
    """Make the next version of a configuration; `content` replaces that of the last one. Raises NotFound."""
    home = writable_workspace(session, actor, workspace)
    latest = _locked_versions(session, home, name)[-1]
    config = DeploymentConfig(
        workspace_id=home.id,
        name=name,
        entity_version=latest.entity_version + 1,
        project=latest.project,
        **content,
        created_by=actor.id,
        updated_by=actor.id,
    )
    session.add(config)
    session.flush()  # The caller shows the row, ids and times included.
    return config


def config_versions(session: Session, workspace_id: UUID, name: str) -> list[DeploymentConfig]:
    """Every version of a configuration, oldest first."""
    query = select(DeploymentConfig).where(
        DeploymentConfig.workspace_id == workspace_id, DeploymentConfig.name == name
    )
    query = query.order_by(DeploymentConfig.entity_version)
    # Whoever locked the rows after reading them must see what they are now.
    return list(session.scalars(query.execution_options(populate_existing=True)))


def delete_config(
    session: Session, actor: Actor, workspace: str, name: str, *, version: int | None = None
) -> None:
    """Remove a configuration, or one version of it.

    Raises NotFound, and Conflict while a deployment that is not DELETED refers to it.
    """
    home = writable_workspace(session, actor, workspace)
    doomed = [
        config
        for config in _locked_versions(session, home, name)
        if version is None or config.entity_version == version
    ]
    which = f"{workspace}/{name}" + (f"' version '{version}" if version is not None else "")
    if not doomed:
        raise NotFound(f"Deployment config '{which}' not found")
    if count := _dependents(session, home.id, name, version):
        raise Conflict(
            f"Cannot delete ModelDeploymentConfig '{which}' because {count} ModelDeployment(s) still "
            "reference it and are not in DELETED status. Delete the dependent deployments first."
        )
    session.execute(delete(DeploymentConfig).where(DeploymentConfig.id.in_([one.id for one in doomed])))


def config_to_use(session: Session, home: Workspace, name: str, version: int | None) -> DeploymentConfig:
    """The named version, or the newest, held against deletion until the transaction ends.

    Raises BadRequest if there is none: the request that named it makes no sense.
    """
    query = select(DeploymentConfig).where(
        DeploymentConfig.workspace_id == home.id, DeploymentConfig.name == name
    )
    if version is not None:
        query = query.where(DeploymentConfig.entity_version == version)
    query = query.order_by(DeploymentConfig.entity_version.desc()).limit(1)
    # KEY SHARE: a deletion of the configuration either waits and then counts our row, or has already won.
    found = session.scalars(query.with_for_update(read=True, key_share=True)).one_or_none()
    if found is None:
        which = f"{home.name}/{name}" + (f"' version '{version}" if version is not None else "")
        raise BadRequest(f"Deployment config '{which}' not found")
    return found


def insists_on(port: int | None) -> ColumnElement[bool]:
    """Whether the configuration that a deployment was made from names that port; for a query of deployments."""
    return exists().where(
        DeploymentConfig.workspace_id == Deployment.workspace_id,
        DeploymentConfig.name == Deployment.config,
        DeploymentConfig.entity_version == Deployment.config_version,
        # As text: what is no number there is told to whoever would serve it.
        DeploymentConfig.executor_config["override_config", "port"].as_string() == str(port),
    )


def _locked_versions(session: Session, home: Workspace, name: str) -> list[DeploymentConfig]:
    query = select(DeploymentConfig.id).where(
        DeploymentConfig.workspace_id == home.id, DeploymentConfig.name == name
    )
    # The oldest row first: whoever adds or removes versions of this name meets there, and then reads again
    # what another may have added meanwhile. It also keeps new deployments from referring to them.
    session.execute(query.order_by(DeploymentConfig.entity_version).with_for_update())
    found = config_versions(session, home.id, name)
    if not found:
        raise NotFound(f"Deployment config '{home.name}/{name}' not found")
    return found


def _dependents(session: Session, workspace_id: UUID, config: str, version: int | None) -> int:
    query = select(func.count(Deployment.name.distinct())).where(
        Deployment.workspace_id == workspace_id,
        Deployment.config == config,
        Deployment.status != DeploymentStatus.DELETED,
    )
    if version is not None:
        query = query.where(Deployment.config_version == version)
    return session.scalars(query).one()
