"""Deployments in a Kubernetes cluster: a Deployment of one pod, and a Service in front of it."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from kubernetes.client import V1ContainerStateTerminated, V1Deployment, V1Pod, V1Service

from app.config import Settings
from app.lifecycle import DeploymentStatus
from app.runtime.deployments.backends.kubernetes.client import (
    ExpectedApiError,
    OutcomeUnknown,
    cluster_of,
    message_of,
)
from app.runtime.deployments.backends.kubernetes.manifests import Objects
from app.runtime.deployments.backends.kubernetes.repeated import Repeated
from app.runtime.deployments.backends.kubernetes.watch import Subscription, watch_of
from app.runtime.deployments.contract import DeploymentSpec, InvalidDeploymentSpec, ObservedState

_LATE_S = 60
"""How long an API server may work at one request: the default of its `--request-timeout`."""
DEPLOYMENTS, SERVICES = "deployments", "services"
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})

T = TypeVar("T")


class KubernetesRuntime:
    """Creates one Deployment and one Service, and reports their state in the cluster.

    It keeps no state that matters: another worker can go on where this one stopped.
    """

    def __init__(
        self, settings: Settings, spec: DeploymentSpec, *, namespace: str, late_s: float = _LATE_S
    ) -> None:
        self._settings, self._spec, self._namespace = settings, spec, namespace
        self._objects = Objects(settings, spec, namespace=namespace)
        self._cluster = cluster_of(settings)
        self._late_s, self._settled_at = late_s, 0.0
        self._changes: Subscription | None = None
        self._observing, self._stopping = Repeated(self._observe), Repeated(self._stop)
        self._is_ready = False

    def observe(self) -> ObservedState:
        """As `Runtime.observe`.

        A server that is ready is watched, and read again only after a change.
        """
        if not self._spec.image:
            raise InvalidDeploymentSpec("the configuration names no image: set executor_config.image_name")
        if self._spec.user == 0 and self._settings.kubernetes_run_as_non_root:
            raise InvalidDeploymentSpec(
                "executor_config.run_as_user must not be 0: WORKSPACES_KUBERNETES_RUN_AS_NON_ROOT is set"
            )
        if self._changes is None:
            self._changes = watch_of(self._cluster, self._namespace).subscribe(self._objects.name)
        return self._observing(
            at_once=self._changes.has_changed, is_current=self._is_ready and self._changes.is_live
        )

    def stop(self) -> bool:
        """As `Runtime.stop`. Waits until all finalizers and all pods are gone.

        In a namespace that does not exist nothing can run: the API answers as for an empty one.
        """
        self._stop_watching()
        return self._stopping()

    def kill(self) -> None:
        """Only end the watch: the server in the cluster belongs to the supervisor that has the lease by now."""
        self._stop_watching()

    def _stop_watching(self) -> None:
        if self._changes:
            self._changes.close()
        self._changes, self._is_ready = None, False

    def _observe(self) -> ObservedState:
        if self._changes:
            self._changes.reset()
        self._is_ready = False
        deployment, service = self._find()
        if _is_being_deleted(deployment) or _is_being_deleted(service):
            return _pending("the former objects are still being deleted")
        if deployment is None:
            body: Any = V1Deployment.from_dict(self._objects.deployment)
            self._create(self._cluster.apps.create_namespaced_deployment, DEPLOYMENTS, body)
        if service is None:
            body = V1Service.from_dict(self._objects.service)
            self._create(self._cluster.core.create_namespaced_service, SERVICES, body)
        if deployment is None or service is None:
            return _pending("created; the cluster has yet to start it")
        if not (deployment.status and deployment.status.available_replicas):
            return _pending(next(self._reasons(deployment)))
        self._is_ready = True
        address = self._objects.address
        # The cluster checks its health, and counts it as available only while the check passes.
        return ObservedState(DeploymentStatus.READY, f"Serving at {address}", address, is_healthy=True)

    def _stop(self) -> bool:
        deployment, service = self._find()
        if deployment and not _is_being_deleted(deployment):
            self._delete(self._cluster.apps.delete_namespaced_deployment, DEPLOYMENTS)
        if service and not _is_being_deleted(service):
            self._delete(self._cluster.core.delete_namespaced_service, SERVICES)
        if deployment or service or self._pods():
            return False
        if time.monotonic() < self._settled_at:
            raise ConnectionError(
                "nothing is there, but a create request that was not answered may still be carried out"
            )
        return True

    # --- the API

    def _find(self) -> tuple[V1Deployment | None, V1Service | None]:
        name = self._objects.name
        return (
            self._ask(self._cluster.apps.read_namespaced_deployment, "NotFound", DEPLOYMENTS, name=name),
            self._ask(self._cluster.core.read_namespaced_service, "NotFound", SERVICES, name=name),
        )

    def _pods(self) -> list[V1Pod]:
        selector = ",".join(f"{key}={value}" for key, value in self._objects.selector.items())
        found: Any = self._cluster.ask(
            self._cluster.core.list_namespaced_pod, namespace=self._namespace, label_selector=selector
        )
        return list(found.items)

    def _create(self, call: Callable[..., Any], resource: str, body: Any) -> None:
        try:
            self._ask(call, "AlreadyExists", resource, body=body)
        except OutcomeUnknown:
            self._settled_at = time.monotonic() + self._late_s
            raise

    def _delete(self, call: Callable[..., Any], resource: str) -> None:
        # The answer stays unparsed: it is a Status or the object itself, and the client expects only one of them.
        options: dict[str, Any] = {"propagation_policy": "Foreground", "_preload_content": False}
        if answer := self._ask(call, "NotFound", resource, name=self._objects.name, **options):
            answer.close()

    def _ask(self, call: Callable[..., T], expected_reason: str, resource: str, **arguments: Any) -> T | None:
        """The answer of the API; None for `expected_reason` about our object. Raises the errors of `Cluster.ask`."""
        expected = ExpectedApiError(expected_reason, resource, self._objects.name)
        return self._cluster.ask(call, expected=expected, namespace=self._namespace, **arguments)

    # --- the state

    def _reasons(self, deployment: V1Deployment) -> Iterator[str]:
        """Why it does not serve yet, the most specific reason first."""
        pods = self._pods()
        for pod in pods:
            yield from _pod_problems(pod)
        conditions = (deployment.status and deployment.status.conditions) or []
        for one in conditions:
            if (one.type, one.status) in {("ReplicaFailure", "True"), ("Progressing", "False")}:
                yield message_of(one.reason, one.message)
        for pod in pods:
            for container in (pod.status and pod.status.container_statuses) or []:
                if container.state and container.state.running:
                    yield f"waiting: {self._spec.health_path} does not answer with success"
                if container.state and container.state.waiting:
                    yield message_of(container.state.waiting.reason, container.state.waiting.message)
        for one in conditions:
            if one.type == "Available":
                yield message_of(one.reason, one.message)
        yield "waiting for the cluster to start it"


def _pending(message: str) -> ObservedState:
    return ObservedState(DeploymentStatus.PENDING, message)


def _is_being_deleted(one: V1Deployment | V1Service | None) -> bool:
    return bool(one and one.metadata and one.metadata.deletion_timestamp)


def _pod_problems(pod: V1Pod) -> Iterator[str]:
    """The reasons why a pod does not run."""
    if pod.status is None:
        return
    for container in pod.status.container_statuses or []:
        waiting = container.state and container.state.waiting
        if waiting and waiting.reason not in _STARTING:
            before = container.last_state and container.last_state.terminated
            yield message_of(waiting.reason, waiting.message, *(_ending(before) if before else ()))
        if ended := container.state and container.state.terminated:
            yield message_of(ended.reason, *_ending(ended))
    for condition in pod.status.conditions or []:
        if condition.reason == "Unschedulable":
            yield message_of(condition.reason, condition.message)
    if pod.status.phase == "Failed":
        yield message_of(pod.status.reason, pod.status.message)


def _ending(ended: V1ContainerStateTerminated) -> tuple[str, str | None]:
    return f"the server ended with exit code {ended.exit_code}", ended.message
