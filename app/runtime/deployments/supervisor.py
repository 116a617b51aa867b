"""What the runtime does with one version of a deployment when it is rung for: serve it, or see it stopped."""

import time
from dataclasses import replace
from datetime import datetime
from threading import Event
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.context import Context
from app.dispatch import deployment_message, notify_after_commit
from app.lease import LeaseLost, has_lapsed
from app.lifecycle import DeploymentStatus
from app.logs import get_logger
from app.models import Deployment
from app.runtime.deployments.backends.registry import runtime_for
from app.runtime.deployments.claim import Claimed, claim_deployment
from app.runtime.deployments.contract import KUBERNETES, InvalidDeploymentSpec, ObservedState, Runtime
from app.runtime.lease import RELEASED
from app.runtime.leased_row import LeasedRow
from app.runtime.processes.leaked_processes import kill_leaked_processes
from app.services.deployment_configs import insists_on
from app.services.deployments import move, replace_older

log = get_logger(__name__)

_LOST_AT_ONCE = 200  # Bounds the transaction; the next sweep marks the rest.


def supervise(context: Context, deployment_id: UUID, *, stopping: Event) -> str:
    """Do what a version of a deployment waits for, for as long as it serves; a sentence for the operator.

    Idempotent, so a ring may be doubled or late: whoever gets the lease serves it, all others return at once.
    Starts nothing in a workspace that is being deleted. When `stopping` is set it stops the server and hands the
    deployment back for another worker; in a cluster it goes on serving. Raises SQLAlchemy's errors; the sweep rings
    again.
    """
    taken = claim_deployment(context, deployment_id, stopping)
    if isinstance(taken, str):
        return taken
    try:
        return _Supervisor(context, taken, stopping).run()
    except LeaseLost:
        log.warning("deployment.lease_lost", deployment_id=str(deployment_id), fence=taken.fence)
        return "the lease was lost; what had been started was killed"


def mark_lost(session: Session, *, now: datetime) -> int:
    """Make LOST whose supervisor has gone silent; how many.

    Their hosts stay on record: only there can be seen that nothing is left, and there they are taken up again.
    """
    query = (
        select(Deployment)
        .where(Deployment.host.is_not(None), has_lapsed(Deployment, now))
        .order_by(Deployment.lease_until)
        .limit(_LOST_AT_ONCE)
        .with_for_update(skip_locked=True)  # two sweeps share the work instead of waiting for each other
    )
    lost = session.scalars(query.execution_options(populate_existing=True)).all()
    for deployment in lost:
        log.warning("deployment.runner_lost", deployment_id=str(deployment.id), host=deployment.host)
        if deployment.status not in (DeploymentStatus.DELETING, DeploymentStatus.DELETED):
            move(session, deployment, DeploymentStatus.LOST, f"runner lost on host '{deployment.host}'")
        deployment.lease_owner = deployment.lease_until = deployment.address = None
        # Should the runner wake up, it must find that it has nothing to write any more.
        deployment.fence += 1
    return len(lost)


class _Supervisor:
    """Looks after one version until it is gone, given up, or handed back. Every write passes the fence."""

    def __init__(self, context: Context, claimed: Claimed, stopping: Event) -> None:
        self._context, self._settings, self._stopping = context, context.settings, stopping
        self._version, self._spec, self._invalid_spec = claimed.deployment, claimed.spec, claimed.invalid_spec
        self._may_serve, self._is_in_cluster = claimed.may_serve, claimed.deployment.host == KUBERNETES
        self._row = LeasedRow(
            context,
            claimed.deployment,
            claimed.deployment.status,
            claimed.fence,
            on_renewal=self._replace_again,
        )
        self._reported: ObservedState | None = None

    def run(self) -> str:
        """Serve until there is no more to do; a sentence for the operator. Raises LeaseLost."""
        try:
            runtime = self._open_runtime()
        except InvalidDeploymentSpec as error:
            return self._end(DeploymentStatus.ERROR, str(error))  # nothing has been made by it
        try:
            return self._serve(runtime)
        except BaseException:
            runtime.kill()  # nobody would look after it any more
            raise

    def _open_runtime(self) -> Runtime:
        if not self._is_in_cluster:
            # Of an earlier runner on this host, whatever it had started.
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
            asked = self._row.refresh()
            if self._stopping.is_set() and self._is_in_cluster:
                return self._leave()
            if asked is DeploymentStatus.DELETING:
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
            # `stopping` would end the pause at once each time, while a server takes its time to end.
            time.sleep(self._settings.runtime_poll_seconds)

    def _observe(self, runtime: Runtime) -> str | None:
        try:
            if self._invalid_spec:
                raise self._invalid_spec
            observed = runtime.observe()
        except InvalidDeploymentSpec as error:
            return self._give_up(runtime, str(error))
        except OSError as error:
            # What was ready still may be: nobody has seen it fail.
            before = self._reported or ObservedState(DeploymentStatus.PENDING, "")
            observed = replace(before, message=f"the runtime failed: {_reported(error)}")
            if isinstance(error, PermissionError) and before.address is None:
                return self._give_up(runtime, observed.message)  # it does not go away by itself
        if observed.status is DeploymentStatus.ERROR:
            return self._give_up(runtime, observed.message)
        self._report(observed)
        return None

    def _report(self, observed: ObservedState) -> None:
        if observed != self._reported:
            self._row.write(lambda session, row: _record(session, self._context, row, observed))
            self._reported = observed

    def _is_stopped(self, runtime: Runtime) -> bool:
        """Whether nothing is left of it. What keeps it from being stopped is told, and it is tried again."""
        try:
            return runtime.stop()
        except (OSError, InvalidDeploymentSpec) as error:
            state = ObservedState(self._row.status, f"cannot be stopped yet: {_reported(error)}")
        if state != self._reported:
            self._row.write(lambda session, row: move(session, row, row.status, state.message))
            self._reported = state
        return False

    def _give_up(self, runtime: Runtime, why: str) -> str:
        """Stop what is there, and leave the deployment as an ERROR, or DELETED if that was asked meanwhile."""
        self._report(ObservedState(DeploymentStatus.ERROR, why))  # at once: its end may take long
        while not self._is_stopped(runtime):
            self._row.refresh()
            if self._stopping.is_set() and self._is_in_cluster:
                return self._leave()
            time.sleep(self._settings.runtime_poll_seconds)
        return self._end(DeploymentStatus.ERROR, why)

    def _leave(self) -> str:
        """Let go of what serves without this worker too; the next one looks after it."""

        def release(session: Session, row: Deployment) -> None:
            row.lease_owner = row.lease_until = None
            notify_after_commit(
                session,
                self._context.publisher,
                deployment_message(row.id, row.workspace_id, row.name, row.host),
            )

        self._row.write(release)
        return f"version {self._version.entity_version} {self._row.status}: left to the next runtime worker"

    def _end(self, status: DeploymentStatus, message: str) -> str:
        """The last write: nothing of it is left here, and nobody looks after it any more."""

        def settle(session: Session, row: Deployment) -> None:
            if row.status is DeploymentStatus.DELETING:
                move(session, row, DeploymentStatus.DELETED, "Deployment deleted")
            else:
                move(session, row, status, message)
            row.address = row.namespace = None
            for name, value in RELEASED.items():
                setattr(row, name, value)
            if row.status is DeploymentStatus.PENDING:
                notify_after_commit(
                    session, self._context.publisher, deployment_message(row.id, row.workspace_id, row.name)
                )

        self._row.write(settle)
        return f"version {self._version.entity_version} {self._row.status}: {message}"

    def _replace_again(self, session: Session, row: Deployment) -> None:
        # What was just being changed when this one was READY has been passed over.
        if self._reported and row.status is not DeploymentStatus.DELETING:
            _replace(session, self._context, row, self._reported)


def _reported(error: Exception) -> str:
    # Without the path that an error of the system names: it is the server's.
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"


def _record(session: Session, context: Context, row: Deployment, observed: ObservedState) -> None:
    """Record how far the server is, and ask for the end of those whose place it takes."""
    if row.status is DeploymentStatus.DELETING:
        return
    move(session, row, observed.status, observed.message)
    row.address = observed.address
    _replace(session, context, row, observed)


def _replace(session: Session, context: Context, row: Deployment, observed: ObservedState) -> None:
    """Once it serves, the older versions have had their time; before that, only those in its way.

    These are on its host, and have the address it insists on, or insist on its port and may get it any time.
    """
    if observed.address:
        older = replace_older(session, row)
    elif observed.required_address:
        in_its_way = or_(
            Deployment.address == observed.required_address,
            insists_on(urlsplit(observed.required_address).port),
        )
        older = replace_older(session, row, Deployment.host == row.host, in_its_way)
    else:
        return
    for one in older:
        notify_after_commit(
            session, context.publisher, deployment_message(one.id, one.workspace_id, one.name, one.host)
        )
