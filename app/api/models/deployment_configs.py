"""Deployment configurations of a workspace over HTTP."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from app import models as rows
from app.access.permissions import Permission
from app.api.models.schemas import (
    DeploymentConfig,
    DeploymentConfigCreate,
    DeploymentConfigList,
    DeploymentConfigVersionCreate,
    OldestFirstQuery,
    version_number,
)
from app.errors import BadRequest, Conflict, NameTaken, NotFound, Unprocessable
from app.filters.fields import Fields
from app.http.paging import Page, list_page
from app.http.route import RequestContext, Routes
from app.services import deployment_configs
from app.services.listing import rows_in
from app.services.versions import versions_of
from app.services.workspaces import readable_workspace

routes = Routes("deployment-configs")
BASE = "/apis/models/v2/workspaces/<workspace>/deployment-configs"
ONE = f"{BASE}/<name>"
VERSION = f"{ONE}/versions/<version>"

FIELDS = Fields(
    key=rows.DeploymentConfig.id,
    columns={
        "workspace": rows.Workspace.name,
        "project": rows.DeploymentConfig.project,
        "model_entity_id": rows.DeploymentConfig.model_entity_id,
        "name": rows.DeploymentConfig.name,
        "description": rows.DeploymentConfig.description,
        "created_at": rows.DeploymentConfig.created_at,
        "updated_at": rows.DeploymentConfig.updated_at,
    },
)


@routes.add(
    "POST",
    BASE,
    permission=Permission.DEPLOYMENTS_WRITE,
    status=201,
    returns=DeploymentConfig,
    raises=(NotFound, NameTaken, Unprocessable),
)
def create_config(call: RequestContext, workspace: str, body: DeploymentConfigCreate) -> DeploymentConfig:
    """Create a deployment configuration."""
    config = deployment_configs.create_config(
        call.session, call.actor, workspace, body.name, project=body.project, **_content(body)
    )
    return _shown(config, workspace)


@routes.add(
    "GET",
    BASE,
    permission=Permission.DEPLOYMENTS_READ,
    returns=Page[DeploymentConfig],
    raises=(BadRequest, NotFound),
)
def list_configs(call: RequestContext, workspace: str, query: OldestFirstQuery) -> Page[DeploymentConfig]:
    """List the newest version of each configuration.

    Workspace `-` means all workspaces.
    """
    other = aliased(rows.DeploymentConfig)
    newest = select(func.max(other.entity_version)).where(
        other.workspace_id == rows.DeploymentConfig.workspace_id, other.name == rows.DeploymentConfig.name
    )
    statement = rows_in(call.session, call.actor, workspace, rows.DeploymentConfig).where(
        rows.DeploymentConfig.entity_version == newest.scalar_subquery()
    )
    return list_page(call, query, statement, FIELDS, item=_shown)


@routes.add("GET", ONE, permission=Permission.DEPLOYMENTS_READ, returns=DeploymentConfig, raises=(NotFound,))
def get_config(call: RequestContext, workspace: str, name: str) -> DeploymentConfig:
    """Get the newest version of a configuration."""
    return _shown(_versions(call, workspace, name)[-1], workspace)


@routes.add(
    "POST",
    ONE,
    permission=Permission.DEPLOYMENTS_WRITE,
    status=201,
    returns=DeploymentConfig,
    raises=(NotFound,),
)
def create_config_version(
    call: RequestContext, workspace: str, name: str, body: DeploymentConfigVersionCreate
) -> DeploymentConfig:
    """Create the next version of a configuration."""
    config = deployment_configs.create_config_version(
        call.session, call.actor, workspace, name, **_content(body)
    )
    return _shown(config, workspace)


@routes.add("DELETE", ONE, permission=Permission.DEPLOYMENTS_WRITE, status=204, raises=(NotFound, Conflict))
def delete_config(call: RequestContext, workspace: str, name: str) -> None:
    """Delete a configuration with all its versions.

    Refused while a deployment that is not DELETED refers to it.
    """
    deployment_configs.delete_config(call.session, call.actor, workspace, name)


@routes.add(
    "GET",
    f"{ONE}/versions",
    permission=Permission.DEPLOYMENTS_READ,
    returns=DeploymentConfigList,
    raises=(NotFound,),
)
def list_config_versions(call: RequestContext, workspace: str, name: str) -> DeploymentConfigList:
    """List the versions of a configuration, oldest first; none if there is no such configuration."""
    home = readable_workspace(call.session, call.actor, workspace)
    found = versions_of(call.session, rows.DeploymentConfig, home.id, name)
    return DeploymentConfigList([_shown(config, workspace) for config in found])


@routes.add(
    "GET",
    VERSION,
    permission=Permission.DEPLOYMENTS_READ,
    returns=DeploymentConfig,
    raises=(BadRequest, NotFound),
)
def get_config_version(call: RequestContext, workspace: str, name: str, version: str) -> DeploymentConfig:
    """Get one version of a configuration."""
    number = version_number(version)
    for config in _versions(call, workspace, name):
        if config.entity_version == number:
            return _shown(config, workspace)
    raise NotFound(f"Deployment config '{workspace}/{name}' version '{version}' not found")


@routes.add(
    "DELETE",
    VERSION,
    permission=Permission.DEPLOYMENTS_WRITE,
    status=204,
    raises=(BadRequest, NotFound, Conflict),
)
def delete_config_version(call: RequestContext, workspace: str, name: str, version: str) -> None:
    """Delete one version of a configuration.

    Refused while a deployment that is not DELETED refers to this version.
    """
    deployment_configs.delete_config(
        call.session, call.actor, workspace, name, version=version_number(version)
    )


def _versions(call: RequestContext, workspace: str, name: str) -> list[rows.DeploymentConfig]:
    home = readable_workspace(call.session, call.actor, workspace)
    found = versions_of(call.session, DeploymentConfig, home.id, name)
    if not found:
        raise NotFound(f"Deployment config '{workspace}/{name}' not found")
    return found


def _content(body: DeploymentConfigVersionCreate) -> dict[str, Any]:
    return body.model_dump(mode="json", exclude={"name", "project"})


def _shown(config: rows.DeploymentConfig, workspace: str) -> DeploymentConfig:
    columns = DeploymentConfig.model_fields.keys() - {"workspace"}
    facts = {column: getattr(config, column) for column in columns}
    return DeploymentConfig.model_validate({**facts, "workspace": workspace})
