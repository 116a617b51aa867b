"""Deployments of a workspace over HTTP."""

from flask import Response
from pydantic import Field

from app import models as rows
from app.access.permissions import Permission
from app.api.models.schemas import (
    Deployment,
    DeploymentCreate,
    DeploymentList,
    DeploymentStatusUpdate,
    DeploymentVersionCreate,
    OldestFirstQuery,
    ServedModels,
)
from app.api.models.versions import Versions, version_number
from app.config.processes import told_to_users
from app.dispatch import deployment_message, notify_after_commit
from app.errors import BadRequest, NameTaken, NotFound, Unprocessable, WrongState
from app.filters.fields import Fields
from app.http.paging import Page, list_page
from app.http.route import Query, RequestContext, Routes
from app.http.transfers.row_stream import resources
from app.http.views import no_content
from app.lifecycle import DeploymentStatus
from app.services import deployments
from app.services.listing import rows_in

routes = Routes("deployments")
BASE = "/apis/models/v2/workspaces/<workspace>/deployments"
ONE = f"{BASE}/<name>"
VERSION = f"{ONE}/versions/<version>"

VERSIONS = Versions(rows.Deployment, "Deployment")

FIELDS = Fields(
    key=rows.Deployment.id,
    columns={
        "workspace": rows.Workspace.name,
        "project": rows.Deployment.project,
        "status": rows.Deployment.status,
        "config": rows.Deployment.config,
        "model_provider_id": rows.Deployment.model_provider_id,
        "name": rows.Deployment.name,
        "status_message": rows.Deployment.status_message,
        "created_at": rows.Deployment.created_at,
        "updated_at": rows.Deployment.updated_at,
    },
)


ITEMS = resources(Deployment, rows.Deployment, workspace=rows.Workspace.name)


class StatusQuery(Query):
    """The version that a report is about."""

    version: str | None = Field(None, description="A version number; the newest by default.")


class DeploymentQuery(OldestFirstQuery):
    """A page of deployments."""

    all_versions: bool = Field(
        default=False, description="List every version, not only the newest of each deployment."
    )


@routes.add(
    "POST",
    BASE,
    permission=Permission.DEPLOYMENTS_WRITE,
    status=201,
    returns=Deployment,
    raises=(BadRequest, NotFound, NameTaken, Unprocessable),
)
def create_deployment(call: RequestContext, workspace: str, body: DeploymentCreate) -> Deployment:
    """Create a deployment.

    The runtime starts its server and checks its health. The deployment is `READY` once the check succeeds; its
    status message then contains the address of the server.
    """
    _require_backend(call)
    deployment = deployments.create_deployment(
        call.session,
        call.actor,
        workspace,
        body.name,
        config=body.config,
        config_version=body.config_version,
        project=body.project,
    )
    _notify(call, deployment)
    return Deployment.from_row(deployment, workspace)


@routes.add(
    "GET",
    BASE,
    permission=Permission.DEPLOYMENTS_READ,
    returns=Page[Deployment],
    raises=(BadRequest, NotFound),
)
def list_deployments(call: RequestContext, workspace: str, query: DeploymentQuery) -> Response:
    """List the newest version of each deployment, or all versions.

    Workspace `-` means all workspaces.
    """
    found = rows_in(call.session, call.actor, workspace, rows.Deployment)
    if not query.all_versions:
        found = found.where(VERSIONS.is_newest)
    return list_page(call, query, found, FIELDS, items=ITEMS)


@routes.add("GET", ONE, permission=Permission.DEPLOYMENTS_READ, returns=Deployment, raises=(NotFound,))
def get_deployment(call: RequestContext, workspace: str, name: str) -> Deployment:
    """Get the newest version of a deployment."""
    return Deployment.from_row(VERSIONS.newest(call, workspace, name), workspace)


@routes.add(
    "POST",
    ONE,
    permission=Permission.DEPLOYMENTS_WRITE,
    status=201,
    returns=Deployment,
    raises=(BadRequest, NotFound, WrongState, Unprocessable),
)
def create_deployment_version(
    call: RequestContext, workspace: str, name: str, body: DeploymentVersionCreate
) -> Deployment:
    """Create the next version of a deployment.

    Once it is `READY`, it replaces the versions before it, which are then stopped. A process with the same fixed
    port as an older version (`executor_config.override_config.port`) starts only after that version has stopped, so
    there is a short gap; without a fixed port there is none.
    """
    _require_backend(call)
    deployment = deployments.create_version(
        call.session, call.actor, workspace, name, config=body.config, config_version=body.config_version
    )
    _notify(call, deployment)
    return Deployment.from_row(deployment, workspace)


@routes.add("DELETE", ONE, permission=Permission.DEPLOYMENTS_WRITE, status=202, raises=(NotFound,))
def delete_deployment(call: RequestContext, workspace: str, name: str) -> Response | None:
    """Delete a deployment with all its versions.

    202: the versions are DELETING until the runtime has seen them stop, then DELETED for half a minute, then
    removed. A repeated request removes them immediately once all are DELETED: 204.
    """
    return _delete(call, workspace, name, None)


@routes.add(
    "GET",
    f"{ONE}/versions",
    permission=Permission.DEPLOYMENTS_READ,
    returns=DeploymentList,
    raises=(NotFound,),
)
def list_deployment_versions(call: RequestContext, workspace: str, name: str) -> Response:
    """List the versions of a deployment, oldest first; none if there is no such deployment."""
    return VERSIONS.every(call, workspace, name, items=ITEMS)


@routes.add(
    "GET",
    VERSION,
    permission=Permission.DEPLOYMENTS_READ,
    returns=Deployment,
    raises=(BadRequest, NotFound),
)
def get_deployment_version(call: RequestContext, workspace: str, name: str, version: str) -> Deployment:
    """Get one version of a deployment."""
    return Deployment.from_row(VERSIONS.get(call, workspace, name, version), workspace)


@routes.add(
    "DELETE", VERSION, permission=Permission.DEPLOYMENTS_WRITE, status=202, raises=(BadRequest, NotFound)
)
def delete_deployment_version(
    call: RequestContext, workspace: str, name: str, version: str
) -> Response | None:
    """Delete one version of a deployment: 202, and 204 once it is DELETED."""
    return _delete(call, workspace, name, version_number(version))


@routes.add(
    "POST",
    f"{ONE}/status",
    permission=Permission.DEPLOYMENTS_WRITE,
    returns=Deployment,
    raises=(BadRequest, NotFound, WrongState),
)
def report_status(
    call: RequestContext, workspace: str, name: str, body: DeploymentStatusUpdate, query: StatusQuery
) -> Deployment:
    """Report the status of a deployment.

    Only DELETED can follow DELETING, and nothing follows DELETED. The runtime reports the status of the deployments
    that it supervises, so a report for one of them is refused: 409.
    """
    deployment = deployments.report_status(
        call.session,
        call.actor,
        workspace,
        name,
        version=version_number(query.version) if query.version is not None else None,
        status=body.status,
        message=body.status_message,
        model_provider_id=body.model_provider_id,
    )
    if deployment.status is DeploymentStatus.DELETING:
        _notify(call, deployment)
    return Deployment.from_row(deployment, workspace)


@routes.add(
    "GET", f"{ONE}/models", permission=Permission.DEPLOYMENTS_READ, returns=ServedModels, raises=(NotFound,)
)
def list_models(call: RequestContext, workspace: str, name: str) -> ServedModels:
    """List the models that a deployment serves."""
    VERSIONS.newest(call, workspace, name)  # or NotFound
    return ServedModels(workspace=workspace, name=name, models=[])


def _require_backend(call: RequestContext) -> None:
    settings = call.context.settings
    if settings.backend == "none":
        message = "Deployments are not enabled because the backend runtime is set to 'none'"
        if settings.deployment_runtime != "none":
            message += f": {told_to_users(settings.subprocess_provider)}"
        raise Unprocessable(message)


def _delete(call: RequestContext, workspace: str, name: str, version: int | None) -> Response | None:
    stopping = deployments.delete_deployment(call.session, call.actor, workspace, name, version=version)
    if stopping is None:
        return no_content()
    for deployment in stopping:
        _notify(call, deployment)
    return None


def _notify(call: RequestContext, deployment: rows.Deployment) -> None:
    message = deployment_message(deployment.id, deployment.workspace_id, deployment.name, deployment.host)
    notify_after_commit(call.session, call.context.publisher, message)
