"""What the runtime does with one version of a deployment."""

from uuid import UUID

from sqlalchemy.orm import Session

from app.context import Context
from app.db import session_scope
from app.lifecycle import DeploymentStatus
from app.models import Deployment
from app.runtime.gate import hold_if_active
from app.services.deployments import move

CONFIRMED = {DeploymentStatus.DELETING: DeploymentStatus.DELETED}
"""Requests to stop, and what the runtime answers: no server of the deployment runs."""

TAKEN_UP = {DeploymentStatus.CREATED: DeploymentStatus.PENDING}
"""Requests to serve, and what the runtime answers: the deployment waits for an executor."""


def advance(context: Context, deployment_id: UUID) -> str:
    """Do the next thing that was asked of a version of a deployment; a sentence for the operator.

    Idempotent, so a ring may be doubled or late. Starts nothing in a workspace that is being deleted.
    """
    with session_scope(context.sessions) as session:
        return _move_on(session, deployment_id)


def _move_on(session: Session, deployment_id: UUID) -> str:
    found = session.get(Deployment, deployment_id)
    if found is None:
        return "gone, nothing to do"
    # The workspace first, then the row: the order in which requests take these locks.
    is_active = hold_if_active(session, found.workspace_id)
    deployment = session.get(Deployment, deployment_id, with_for_update=True, populate_existing=True)
    if deployment is None:
        return "gone, nothing to do"
    version, before = f"version {deployment.entity_version}", deployment.status
    if before in CONFIRMED:
        move(session, deployment, CONFIRMED[before], "Deployment deleted")
        return f"{version} {before} → {deployment.status}, nothing of it runs"
    if before in TAKEN_UP and is_active:
        move(session, deployment, TAKEN_UP[before], "Accepted; this release has no executor to serve it")
        return f"{version} {before} → {deployment.status}; this release has no executor, the deployment waits"
    if before in TAKEN_UP:
        return f"{version} stays {before}, its workspace is being deleted"
    return f"{version} {before}, nothing to do"
