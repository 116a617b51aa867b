"""Deployments: stopped, seen stopped, then removed. The last thing of a workspace that runs."""

from app.cleanup.kinds.base import Gone, ResourceKind, Waiting
from app.context import Context
from app.db import after_commit, session_scope
from app.dispatch import deployment_ring
from app.lifecycle import DeploymentStatus
from app.models import Deployment
from app.services import deployments as service


def _delete(context: Context, deployment: Deployment) -> Gone | Waiting:
    with session_scope(context.sessions) as session:
        status = service.request_stop(session, deployment.id)
        if status is None or status is DeploymentStatus.DELETED:
            return Gone()
        message = deployment_ring(deployment.id, deployment.workspace_id, deployment.name)
        after_commit(session, lambda: context.bell.ring(message))
    return Waiting(f"{status.value}: waiting for the runtime worker to confirm that it stopped")


KIND = ResourceKind("deployments", Deployment, _delete)
