"""Whether a deployment serves, as clients ask a gateway: each deployment is the provider of its name."""

from functools import cache

from pydantic import BaseModel
from sqlalchemy import Select, bindparam, select

from app.access.authorize import Access
from app.access.permissions import Permission
from app.clock import seconds_from_now
from app.errors import NotFound
from app.http.route import RequestContext, Routes
from app.lifecycle import DeploymentStatus
from app.models import Deployment, Workspace
from app.services.workspaces import is_named, readable_workspace_id

routes = Routes("inference gateway")

HEALTHY_WITHIN_S = 15
"""The age of a passed health check with which a provider counts as ready; the runtime notes one every five seconds."""


class Readiness(BaseModel):
    """A provider that is ready, and the URL of its server."""

    ready: bool
    provider: str
    host_url: str


@routes.add(
    "GET",
    "/apis/inference-gateway/v2/workspaces/<workspace>/provider/<name>/ready",
    permission=Permission.DEPLOYMENTS_READ,
    returns=Readiness,
    raises=(NotFound,),
)
def get_readiness(call: RequestContext, workspace: str, name: str) -> Readiness:
    """Ask whether a provider is ready.

    The provider of a deployment has its name. It is ready while a version of the deployment is `READY` and the runtime
    has seen its health check succeed within the last 15 seconds; otherwise the answer is 404. There is no gateway that
    passes requests on: clients use `host_url`.
    """
    which = {"workspace": workspace, "deployment": name}
    address = call.session.scalar(_serving(call.actor.access), call.actor.parameters | which)
    if address is None:
        readable_workspace_id(call.session, call.actor, workspace)  # or why not
        raise NotFound(
            f"Provider '{workspace}/{name}' is not ready: no version of a deployment of that name is READY with a "
            f"health check that the runtime has seen succeed within the last {HEALTHY_WITHIN_S} s."
        )
    return Readiness(ready=True, provider=f"{workspace}/{name}", host_url=address)


@cache
def _serving(access: Access) -> Select[str | None]:
    """The address of the newest version that serves."""
    return (
        select(Deployment.address)
        .join(Workspace, Workspace.id == Deployment.workspace_id)
        .where(
            *is_named(access),
            Deployment.name == bindparam("deployment"),
            Deployment.status == DeploymentStatus.READY,
            Deployment.healthy_at > seconds_from_now(-HEALTHY_WITHIN_S),
        )
        .order_by(Deployment.entity_version.desc())
        .limit(1)
    )
