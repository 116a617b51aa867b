"""Handles the message for one version of a deployment: serves it, or stops it and confirms that nothing is left."""

import time
from dataclasses import replace
from threading import Event
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import or_
from sqlalchemy.orm import Session

from app.clock import database_now, seconds_from_now
from app.context import Context
from app.dispatch import deployment_message, notify_after_commit
from app.lease import LeaseLost
from app.lifecycle import DeploymentStatus
from app.logs import get_logger
from app.models import Deployment
from app.runtime.deployments.backends.registry import runtime_for
from app.runtime.deployments.claim import Claimed, claim_deployment, waiting_for_a_place
from app.runtime.deployments.contract import KUBERNETES, InvalidDeploymentSpec, ObservedState, Runtime
from app.runtime.leased_row import LeasedRow
from app.runtime.processes.leaked_processes import kill_leaked_processes
from app.runtime.rows import lock_lapsed, take_lease_away
from app.services.deployment_configs import requires_port
from app.services.deployments import move, replace_older
from app.services.hosts.rows import each_row, release

log = get_logger(__name__)

_HEALTH_NOTED_S = 5.0
"""How often the last passed health check is noted, with the lease: the gateway asks for one of the last 15 s."""


def supervise(
    context: Context,
    deployment_id: UUID,
    *,
    stopping: Event,
    draining: Event | None = None,
    crowded: Event | None = None,
) -> str:
    """Do what a version of a deployment waits for, for as long as it serves; a summary for the operator.

    Idempotent, so a message may be doubled or late: one supervisor gets the lease and serves it, all others return at
    once. Starts nothing in a workspace that is being deleted. When `stopping` is set it stops the server and hands the
    deployment back to another worker; a server in the cluster goes on serving. Once `draining` is set it takes up
    nothing more, and hands over what is in the cluster; while `crowded` is set, only new versions of what is served.
    Raises SQLAlchemy's errors; the sweep sends another message.
    """
    draining = draining or stopping
    claimed = claim_deployment(context, deployment_id, draining, crowded)
    if isinstance(claimed, str):
        return claimed
    try:
        return _Supervisor(context, claimed, stopping=stopping, draining=draining).run()
    except LeaseLost:
        log.warning("deployment.lease_lost", deployment_id=str(deployment_id), fence=claimed.lease.fence)
        return "the lease was lost; its processes were killed"


def mark_lost(session: Session) -> int:
    """Take the lease from supervisors that no longer renew it, and mark their deployments as LOST; how many.

    Their hosts stay on record: only there can a worker confirm that nothing is left, and there they are claimed again.
    What is in a cluster keeps its status: it serves on until another worker takes it over.
    """
    lost = lock_lapsed(session, Deployment)
    for deployment in each_row(session, Deployment, lost):
        log.warning("deployment.runner_lost", deployment_id=str(deployment.id), host=deployment.host)
        take_lease_away(deployment)
        if deployment.host == KUBERNETES:
            continue  # the cluster keeps it running, whoever supervises it
        if deployment.status not in (DeploymentStatus.DELETING, DeploymentStatus.DELETED):
            move(session, deployment, DeploymentStatus.LOST, f"runner lost on host '{deployment.host}'")
        deployment.address = None
    return len(lost)


class _Supervisor:
    """Supervises one version until it is deleted, failed, or handed back. The fencing token guards every write."""

    def __init__(self, context: Context, claimed: Claimed, *, stopping: Event, draining: Event) -> None:
        self._context, self._settings = context, context.settings
        self._stopping, self._draining = stopping, draining
        self._version, self._spec, self._invalid_spec = claimed.deployment, claimed.spec, claimed.invalid_spec
        self._may_serve, self._is_in_cluster = claimed.may_serve, claimed.deployment.host == KUBERNETES
        self._row = LeasedRow(
            context,
            claimed.deployment,
            claimed.deployment.status,
            claimed.lease,
            stopping=stopping,
            on_renewal=self._renewed,
            renew_within_s=_HEALTH_NOTED_S,
        )
        self._reported: ObservedState | None = None
        self._healthy_at: float | None = None
        self._has_served = claimed.deployment.became_ready_at is not None
        self._start_deadline = time.monotonic() + self._settings.deployment_start_seconds

    def run(self) -> str:
        """Serve until there is no more to do; a summary for the operator. Raises LeaseLost."""
        try:
            runtime = self._open_runtime()
        except InvalidDeploymentSpec as error:
            return self._end(DeploymentStatus.ERROR, str(error))  # it has started nothing
        try:
            return self._serve(runtime)
        except BaseException:
            runtime.kill()  # nobody would supervise it any more
            raise

    def _open_runtime(self) -> Runtime:
        if not self._is_in_cluster:
            # The processes of an earlier runner on this host come first.
            while not kill_leaked_processes(self._version.id, within_s=self._settings.stop_grace_seconds):
                self._row.refresh()
        return runtime_for(
            self._settings,
            self._spec,
            host=self._version.host,
            namespace=self._version.namespace or "",
        )

    def _serve(self, runtime: Runtime) -> str:
        while True:
            requested = self._row.refresh()
            if self._draining.is_set() and self._is_in_cluster:
                return self._hand_over()
            if requested is DeploymentStatus.DELETING:
                if self._is_stopped(runtime):
                    return self._end(DeploymentStatus.DELETED, "Deployment deleted")
            elif not self._may_serve:
                if self._is_stopped(runtime):
                    return self._end(DeploymentStatus.PENDING, "stopped: its workspace is being deleted")
            elif self._stopping.is_set():
                if self._is_stopped(runtime):
                    return self._end(DeploymentStatus.PENDING, "handed back: the runtime worker was stopped")
            elif ended := self._observe(runtime):
                return ended
            # Not `stopping.wait`: once it is set that returns at once, while a server takes its time to end.
            time.sleep(self._settings.runtime_poll_seconds)

    def _observe(self, runtime: Runtime) -> str | None:
        try:
            if self._invalid_spec:
                raise self._invalid_spec
            observed = runtime.observe()
            if observed.is_healthy:
                self._healthy_at = time.monotonic()
        except InvalidDeploymentSpec as error:
            return self._fail(runtime, str(error))
        except OSError as error:
            # A server that was ready may still be so: no check has failed.
            before = self._reported or ObservedState(DeploymentStatus.PENDING, "")
            observed = replace(before, message=f"the runtime failed: {_message_of(error)}")
            if isinstance(error, PermissionError) and not self._has_served:
                return self._fail(runtime, observed.message)  # it does not pass by itself
        self._has_served = self._has_served or observed.status is DeploymentStatus.READY
        if not self._has_served and time.monotonic() >= self._start_deadline:
            limit = self._settings.deployment_start_seconds
            why = "; ".join(part for part in (observed.message, observed.details) if part)
            return self._fail(runtime, f"not ready within {limit:g} s: {why}")
        self._report(observed)
        return None

    def _report(self, observed: ObservedState) -> None:
        def record(session: Session, row: Deployment) -> None:
            _record(session, self._context, row, observed)
            self._note_health(row)

        if observed != self._reported:
            self._row.write(record)
            self._reported = observed

    def _note_health(self, row: Deployment) -> None:
        if self._healthy_at is not None:
            row.healthy_at = seconds_from_now(self._healthy_at - time.monotonic())

    def _is_stopped(self, runtime: Runtime) -> bool:
        """Stop it; whether nothing of it is left. An error goes to the status message, and the caller tries again."""
        try:
            return runtime.stop()
        except (OSError, InvalidDeploymentSpec) as error:
            state = ObservedState(self._row.status, f"cannot be stopped yet: {_message_of(error)}")
        if state != self._reported:
            self._row.write(lambda session, row: move(session, row, row.status, state.message))
            self._reported = state
        return False

    def _fail(self, runtime: Runtime, why: str) -> str:
        """Stop the server and end the deployment as ERROR, or as DELETED if that was requested meanwhile."""
        self._report(ObservedState(DeploymentStatus.ERROR, why))  # at once: stopping may take long
        while not self._is_stopped(runtime):
            self._row.refresh()
            if self._draining.is_set() and self._is_in_cluster:
                return self._hand_over()
            time.sleep(self._settings.runtime_poll_seconds)
        return self._end(DeploymentStatus.ERROR, why)

    def _hand_over(self) -> str:
        """Give the lease back while the server in the cluster goes on; the next runtime worker takes it over."""

        def give_back(session: Session, row: Deployment) -> None:
            row.lease_owner = row.lease_until = None
            _notify(session, self._context, row)

        self._row.write(give_back)
        return f"version {self._version.entity_version} {self._row.status}: left to the next runtime worker"

    def _end(self, status: DeploymentStatus, message: str) -> str:
        """Write the final status, and that nothing of it is left here."""

        def settle(session: Session, row: Deployment) -> None:
            if row.status is DeploymentStatus.DELETING:
                move(session, row, DeploymentStatus.DELETED, "Deployment deleted")
            else:
                move(session, row, status, message)
            row.address = row.namespace = None
            release(row)
            if row.status is DeploymentStatus.PENDING:
                _notify(session, self._context, row)
            if next_one := waiting_for_a_place(session, row.workspace_id):
                _notify(session, self._context, next_one)

        self._row.write(settle)
        return f"version {self._version.entity_version} {self._row.status}: {message}"

    def _renewed(self, session: Session, row: Deployment) -> None:
        self._note_health(row)
        # Older versions that were locked when this one became READY have been skipped.
        if self._reported and row.status is not DeploymentStatus.DELETING:
            _replace(session, self._context, row, self._reported)


def _message_of(error: Exception) -> str:
    # An OSError names a path of the server, which users must not see.
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"


def _record(session: Session, context: Context, row: Deployment, observed: ObservedState) -> None:
    """Record the state of the server, and request the end of the versions that it replaces."""
    if row.status is DeploymentStatus.DELETING:
        return
    move(session, row, observed.status, observed.message)
    row.address = observed.address
    if observed.address:
        row.became_ready_at = row.became_ready_at or database_now()
    _replace(session, context, row, observed)


def _replace(session: Session, context: Context, row: Deployment, observed: ObservedState) -> None:
    """Request the end of all older versions once this one serves; before that, of those that block its address.

    These are on its host, and have the address that it requires, or require its port and may get it any time.
    """
    if observed.address:
        older = replace_older(session, row)
    elif observed.required_address:
        port = urlsplit(observed.required_address).port
        in_its_way = or_(Deployment.address == observed.required_address, requires_port(port))
        older = replace_older(session, row, Deployment.host == row.host, in_its_way)
    else:
        return
    for one in older:
        _notify(session, context, one)


def _notify(session: Session, context: Context, row: Deployment) -> None:
    message = deployment_message(row.id, row.workspace_id, row.name, row.host)
    notify_after_commit(session, context.publisher, message)
