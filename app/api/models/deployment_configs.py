"""Deployment configurations of a workspace over HTTP."""

from typing import Any

from flask import Response

from app import models as rows
from app.access.permissions import Permission
from app.api.models.schemas import (
    DeploymentConfig,
    DeploymentConfigCreate,
    DeploymentConfigList,
    DeploymentConfigVersionCreate,
    OldestFirstQuery,
)
from app.api.models.versions import Versions, version_number
from app.errors import BadRequest, Conflict, NameTaken, NotFound, Unprocessable
from app.filters.fields import Fields
from app.http.paging import Page, list_page
from app.http.route import RequestContext, Routes
from app.http.transfers.row_stream import resources
from app.services import deployment_configs
from app.services.listing import rows_in

routes = Routes("deployment-configs")
BASE = "/apis/models/v2/workspaces/<workspace>/deployment-configs"
ONE = f"{BASE}/<name>"
VERSION = f"{ONE}/versions/<version>"

VERSIONS = Versions(rows.DeploymentConfig, "Deployment config")

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


ITEMS = resources(DeploymentConfig, rows.DeploymentConfig, workspace=rows.Workspace.name)


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
    return DeploymentConfig.from_row(config, workspace)


@routes.add(
    "GET",
    BASE,
    permission=Permission.DEPLOYMENTS_READ,
    returns=Page[DeploymentConfig],
    raises=(BadRequest, NotFound),
)
def list_configs(call: RequestContext, workspace: str, query: OldestFirstQuery) -> Response:
    """List the newest version of each configuration.

    Workspace `-` means all workspaces.
    """
    found = rows_in(call.session, call.actor, workspace, rows.DeploymentConfig)
    return list_page(call, query, found.where(VERSIONS.is_newest), FIELDS, items=ITEMS)


@routes.add("GET", ONE, permission=Permission.DEPLOYMENTS_READ, returns=DeploymentConfig, raises=(NotFound,))
def get_config(call: RequestContext, workspace: str, name: str) -> DeploymentConfig:
    """Get the newest version of a configuration."""
    return DeploymentConfig.from_row(VERSIONS.newest(call, workspace, name), workspace)


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
    return DeploymentConfig.from_row(config, workspace)


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
def list_config_versions(call: RequestContext, workspace: str, name: str) -> Response:
    """List the versions of a configuration, oldest first; none if there is no such configuration."""
    return VERSIONS.every(call, workspace, name, items=ITEMS)


@routes.add(
    "GET",
    VERSION,
    permission=Permission.DEPLOYMENTS_READ,
    returns=DeploymentConfig,
    raises=(BadRequest, NotFound),
)
def get_config_version(call: RequestContext, workspace: str, name: str, version: str) -> DeploymentConfig:
    """Get one version of a configuration."""
    return DeploymentConfig.from_row(VERSIONS.get(call, workspace, name, version), workspace)


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


def _content(body: DeploymentConfigVersionCreate) -> dict[str, Any]:
    return body.model_dump(mode="json", exclude={"name", "project"})
