"""Who gets a version of a deployment when it is rung for, and what that version shall be."""

from dataclasses import dataclass
from datetime import timedelta
from threading import Event
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import clock
from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.lifecycle import DeploymentStatus
from app.models import Deployment, DeploymentConfig, Workspace
from app.runtime.deployments.backends.kubernetes import has_kubernetes
from app.runtime.deployments.contract import KUBERNETES, DeploymentSpec, InvalidDeploymentSpec
from app.runtime.lease import Runner, claim
from app.services.deployments import move
from app.services.workspaces import installation, lock_active_workspace

CONFIRMED = {DeploymentStatus.DELETING: DeploymentStatus.DELETED}
"""What may be asked of a deployment that no host has, and the answer: nothing of it runs."""

TAKEN_UP = frozenset({DeploymentStatus.CREATED, DeploymentStatus.PENDING, DeploymentStatus.LOST})
"""In which a deployment that no host has waits for one."""


@dataclass(frozen=True)
class Claimed:
    """A version of a deployment that this runner holds, and what it shall be."""

    deployment: Deployment
    spec: DeploymentSpec
    invalid_spec: InvalidDeploymentSpec | None
    """Why it cannot be served; then it is only to be stopped, for which `wanted` is enough."""
    fence: int
    may_serve: bool
    """Otherwise its workspace is being deleted: what an earlier runner has left is only to be stopped."""


def claim_deployment(context: Context, deployment_id: UUID, stopping: Event) -> Claimed | str:
    """Claim a deployment that has to be served or seen stopped; otherwise what there was to do, or not. Commits."""
    with session_scope(context.sessions) as session:
        found = session.get(Deployment, deployment_id)
        if found is None:
            return "gone, nothing to do"
        # The workspace first, then the row: the order in which requests take these locks.
        is_active = lock_active_workspace(session, found.workspace_id)
        row = session.get(Deployment, deployment_id, with_for_update=True, populate_existing=True)
        if row is None:
            return "gone, nothing to do"
        version, before = f"version {row.entity_version}", row.status
        if row.host is None:
            if before in CONFIRMED:
                move(session, row, CONFIRMED[before], "Deployment deleted")
                return f"{version} {before} → {row.status}, nothing of it runs"
            if before not in TAKEN_UP:
                return f"{version} {before}, nothing to do"
            if not is_active:
                return f"{version} stays {before}, its workspace is being deleted"
            if stopping.is_set():
                return f"{version} stays {before}, this worker is being stopped"
        lasting = timedelta(seconds=context.settings.runtime_lease_seconds)
        fence = claim(row, _runner(context.settings, row), now=clock.now(), lasting=lasting)
        if fence is None:
            return f"{version} {before}, supervised on host '{row.host}'"
        if row.host == KUBERNETES:
            # On record before anything is made there: it has to be found again, whatever is set by then.
            row.namespace = row.namespace or context.settings.kubernetes_namespace
        return Claimed(row, *_spec_of(session, row), fence, is_active)


def _runner(settings: Settings, row: Deployment) -> Runner:
    """Kubernetes keeps what it runs, whichever worker looks after it: there all of them that can are one host.

    What is somewhere is looked after there, whichever runtime is set by now.
    """
    runner = Runner.of_this_process(settings)
    # Whoever cannot look into a cluster must not say that nothing is left there; what is not there yet, it can.
    if row.host == KUBERNETES and not has_kubernetes():
        return runner
    if (row.host or settings.deployment_runtime) == KUBERNETES:
        return Runner(KUBERNETES, f"{runner.host}/{runner.name}")
    return runner


def _spec_of(session: Session, row: Deployment) -> tuple[DeploymentSpec, InvalidDeploymentSpec | None]:
    workspace = session.get_one(Workspace, row.workspace_id).name
    mark = str(installation(session))
    try:
        return DeploymentSpec.of(row, _config(session, row), workspace=workspace, installation=mark), None
    except InvalidDeploymentSpec as error:
        return DeploymentSpec(row.id, workspace, row.name, row.entity_version), error


def _config(session: Session, row: Deployment) -> DeploymentConfig:
    config = session.scalars(
        select(DeploymentConfig).where(
            DeploymentConfig.workspace_id == row.workspace_id,
            DeploymentConfig.name == row.config,
            DeploymentConfig.entity_version == row.config_version,
        )
    ).one_or_none()
    if config is None:
        raise InvalidDeploymentSpec(f"configuration '{row.config}' version {row.config_version} is gone")
    return config
