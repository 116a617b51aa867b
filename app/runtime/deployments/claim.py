"""Claims a version of a deployment when a message for it arrives, and reads its spec."""

from dataclasses import dataclass
from threading import Event
from uuid import UUID

from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import Session

from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.lifecycle import DeploymentStatus
from app.models import Deployment, DeploymentConfig, Workspace
from app.runtime.deployments.backends.kubernetes import has_kubernetes
from app.runtime.deployments.contract import KUBERNETES, DeploymentSpec, InvalidDeploymentSpec
from app.runtime.lease import Lease, Runner, claim
from app.runtime.rows import lock_for_claim, lock_slots
from app.services.deployments import move
from app.services.workspaces import installation

CONFIRMED = {DeploymentStatus.DELETING: DeploymentStatus.DELETED}
"""Requests that are confirmed at once for a deployment without a host, because nothing of it runs."""

TAKEN_UP = frozenset({DeploymentStatus.CREATED, DeploymentStatus.PENDING, DeploymentStatus.LOST})
"""Statuses in which a deployment without a host waits for one."""


@dataclass(frozen=True)
class Claimed:
    """A version of a deployment whose lease this runner holds, and its spec."""

    deployment: Deployment
    spec: DeploymentSpec
    invalid_spec: InvalidDeploymentSpec | None
    """Why it cannot be served. Then it is only stopped, for which `spec` is enough."""
    lease: Lease
    may_serve: bool
    """False if its workspace is being deleted: then processes that an earlier runner left are only stopped."""


def claim_deployment(
    context: Context, deployment_id: UUID, draining: Event, crowded: Event | None = None
) -> Claimed | str:
    """Claim a deployment that has to be served or stopped; otherwise a summary of what was done. Commits."""
    with session_scope(context.sessions) as session:
        locked = lock_for_claim(session, Deployment, deployment_id)
        if locked is None:
            return "gone, nothing to do"
        row, is_active = locked
        version, before = f"version {row.entity_version}", row.status
        if row.host is None and (why := _confirm(session, row, draining, is_active=is_active)):
            return f"{version} {why}"
        if row.host is None and (why := _why_not_yet(session, context.settings, row, crowded)):
            if row.status_message != why:
                move(session, row, DeploymentStatus.PENDING, why)
            return f"{version} {why}"
        runner = _runner(context.settings, row)
        lease = claim(session, row, runner, lease_s=context.settings.runtime_lease_seconds)
        if lease is None:
            return f"{version} {before}, supervised on host '{row.host}'"
        if row.host == KUBERNETES:
            # Recorded before anything is created there: it has to be found even if the setting changes.
            row.namespace = row.namespace or context.settings.kubernetes_namespace
        return Claimed(row, *_spec_of(session, row), lease, is_active)


def _confirm(session: Session, row: Deployment, draining: Event, *, is_active: bool) -> str | None:
    """Confirm what a deployment without a host can confirm; why it is not to be claimed, or None if it is."""
    before = row.status
    if before in CONFIRMED:
        move(session, row, CONFIRMED[before], "Deployment deleted")
        return f"{before} → {row.status}, nothing of it runs"
    if before not in TAKEN_UP:
        return f"{before}, nothing to do"
    if not is_active:
        return f"stays {before}, its workspace is being deleted"
    if draining.is_set():
        return f"stays {before}, this worker is being stopped"
    return None


_WAITS = "waits for a place: "
"""How the status message of a deployment begins that may not be served yet."""


def _why_not_yet(session: Session, settings: Settings, row: Deployment, crowded: Event | None) -> str | None:
    """Why a deployment has to wait. A new version of one that is served never does: the older one waits for it."""
    of_workspace = and_(Deployment.workspace_id == row.workspace_id, Deployment.host.is_not(None))
    if session.scalar(select(exists().where(of_workspace, Deployment.name == row.name))):
        return None
    if crowded and crowded.is_set():
        return f"{_WAITS}the runtime workers supervise as much as they can"
    if limit := settings.deployments_per_workspace:
        lock_slots(session)
        served = session.scalar(select(func.count(Deployment.name.distinct())).where(of_workspace)) or 0
        if served >= limit:
            return f"{_WAITS}{served} deployments of its workspace are served, and {limit} may"
    return None


def waiting_for_a_place(session: Session, workspace_id: UUID) -> Deployment | None:
    """The deployment of a workspace that has waited longest for others to end, if any has."""
    oldest = (
        select(Deployment)
        .where(
            Deployment.workspace_id == workspace_id,
            Deployment.host.is_(None),
            Deployment.status == DeploymentStatus.PENDING,
            Deployment.status_message.startswith(_WAITS),
        )
        .order_by(Deployment.id)
        .limit(1)
    )
    return session.scalars(oldest).one_or_none()


def _runner(settings: Settings, row: Deployment) -> Runner:
    """The runner for the place where the row is, whichever runtime is set by now.

    All workers that can reach the cluster count as one host there: the cluster keeps its servers running, whichever
    worker supervises them.
    """
    runner = Runner.of_this_process(settings)
    # Without the client a worker cannot confirm that nothing is left in the cluster, except of a new deployment.
    if row.host == KUBERNETES and not has_kubernetes():
        return runner
    if (row.host or settings.deployment_runtime) == KUBERNETES:
        return Runner(KUBERNETES, f"{runner.host}/{runner.name}")
    return runner


def _spec_of(session: Session, row: Deployment) -> tuple[DeploymentSpec, InvalidDeploymentSpec | None]:
    workspace = session.get_one(Workspace, row.workspace_id).name
    owner = str(installation(session))
    try:
        return DeploymentSpec.of(row, _config(session, row), workspace=workspace, installation=owner), None
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
