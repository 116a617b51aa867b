"""Deployments: stopped, seen stopped, then removed. The last thing of a workspace that runs."""

from app.cleanup.kinds.base import Deleted, Pending, ResourceKind
from app.context import Context
from app.db import session_scope
from app.dispatch import deployment_message, notify_after_commit
from app.models import Deployment
from app.services import deployments as service


def _delete(context: Context, deployment: Deployment) -> Deleted | Pending:
    with session_scope(context.sessions) as session:
        present, is_requested_now = service.request_stop(session, deployment.id)
        if present is None or service.is_gone(present):
            return Deleted()
        if is_requested_now:
            # Once: the sweep sends it again as long as nobody looks after the row. To do so at every poll would fill
            # the queue where thousands wait.
            message = deployment_message(present.id, present.workspace_id, present.name, present.host)
            notify_after_commit(session, context.publisher, message)
    whom = f"host '{present.host}'" if present.host else "the runtime worker"
    status = f"{present.status.value} ({present.status_message})"  # the message says why its host has not stopped it
    return Pending(f"{status}: waiting for {whom} to confirm that nothing of it runs")


KIND = ResourceKind("deployments", Deployment, _delete)
