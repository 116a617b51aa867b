"""Deployments in a Kubernetes cluster: a Deployment of one pod, and a Service in front of it."""

import json
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

from kubernetes import config
from kubernetes.client import (
    ApiClient,
    ApiException,
    AppsV1Api,
    Configuration,
    CoreV1Api,
    V1ContainerStateTerminated,
    V1Deployment,
    V1Pod,
    V1Service,
)
from urllib3.exceptions import HTTPError

from app.config import Settings
from app.lifecycle import DeploymentStatus
from app.runtime.kubernetes_objects import Objects
from app.runtime.kubernetes_watch import DeploymentWatch
from app.runtime.runtimes import Observed, Unservable, Wanted

_MESSAGE_CHARS = 500
_LONGEST_REQUEST_S = 5.0
_LOOK_AGAIN_S = 60
"""After so long what serves is read anew, although nothing was heard of it: its Service is not watched."""
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})

T = TypeVar("T")


class KubernetesRuntime:
    """Brings about one Deployment and one Service, and tells what the cluster says of them.

    Holds nothing itself: another worker can go on where this one stopped.
    """

    def __init__(self, settings: Settings, wanted: Wanted) -> None:
        self._settings, self._wanted = settings, wanted
        self._objects = Objects(settings, wanted)
        # All requests of one look must fit into the lease, or another worker would come between them.
        self._timeout_s = min(_LONGEST_REQUEST_S, settings.runtime_lease_seconds / 10)
        self._ready: Observed | None = None
        self._watch: DeploymentWatch | None = None
        self._deadline = time.monotonic() + settings.deployment_start_seconds

    def observe(self) -> Observed:
        """As `Runtime.observe`. ERROR when it was not ready within the time that a start may take.

        What serves is watched, and read again only when something is heard of it.
        """
        if self._ready and self._watch and not self._watch.has_rung:
            return self._ready
        if not self._wanted.image:
            raise Unservable("the configuration names no image: set executor_config.image_name")
        deployment, service = self._find()
        if _is_going(deployment) or _is_going(service):
            return self._pending("what was there before is still being deleted")
        if deployment is None:
            body: Any = V1Deployment.from_dict(self._objects.deployment)
            self._ask(self._apps.create_namespaced_deployment, absent=409, body=body)
        if service is None:
            body = V1Service.from_dict(self._objects.service)
            self._ask(self._core.create_namespaced_service, absent=409, body=body)
        if deployment is None or service is None:
            return self._pending("created; the cluster has yet to start it")
        if not (deployment.status and deployment.status.available_replicas):
            return self._pending(next(self._reasons(deployment)))
        self._listen(deployment)
        address = self._objects.address
        self._ready = Observed(DeploymentStatus.READY, f"Serving at {address}", address)
        return self._ready

    def stop(self) -> bool:
        """As `Runtime.stop`. What has finalizers is left until they are gone, and so are its pods."""
        self._hang_up()
        deployment, service = self._find()
        if deployment and not _is_going(deployment):
            self._delete(self._apps.delete_namespaced_deployment)
        if service and not _is_going(service):
            self._delete(self._core.delete_namespaced_service)
        return not (deployment or service or self._pods())

    def kill(self) -> None:
        """Only listen no more: what runs in the cluster is the same for whoever supervises it by now."""
        self._hang_up()

    def _listen(self, deployment: V1Deployment) -> None:
        self._hang_up()
        metadata: Any = deployment.metadata
        self._watch = DeploymentWatch(
            self._apps,
            namespace=self._settings.kubernetes_namespace,
            name=self._objects.name,
            since=metadata.resource_version,
            for_s=_LOOK_AGAIN_S,
        )

    def _hang_up(self) -> None:
        if self._watch:
            self._watch.close()
        self._watch = None

    def _find(self) -> tuple[V1Deployment | None, V1Service | None]:
        return (
            self._ask(self._apps.read_namespaced_deployment, name=self._objects.name),
            self._ask(self._core.read_namespaced_service, name=self._objects.name),
        )

    def _pods(self) -> list[V1Pod]:
        selector = ",".join(f"{key}={value}" for key, value in self._objects.selector.items())
        found = self._ask(self._core.list_namespaced_pod, label_selector=selector)
        return found.items if found else []

    def _delete(self, call: Callable[..., Any]) -> None:
        # Unread: the answer is a Status or the object itself, and the client takes it for one of them only.
        options: dict[str, Any] = {"propagation_policy": "Foreground", "_preload_content": False}
        if answer := self._ask(call, name=self._objects.name, **options):
            answer.close()

    # --- how far it is

    def _pending(self, message: str) -> Observed:
        now = time.monotonic()
        if self._ready:
            self._ready = None
            self._deadline = now + self._settings.deployment_start_seconds
        if now < self._deadline:
            return Observed(DeploymentStatus.PENDING, message)
        limit = self._settings.deployment_start_seconds
        return Observed(DeploymentStatus.ERROR, f"not ready within {limit:g} s: {message}")

    def _reasons(self, deployment: V1Deployment) -> Iterator[str]:
        """Why it does not serve yet, the most telling reason first."""
        pods = self._pods()
        for pod in pods:
            yield from _troubles(pod)
        conditions = (deployment.status and deployment.status.conditions) or []
        for one in conditions:
            if (one.type, one.status) in {("ReplicaFailure", "True"), ("Progressing", "False")}:
                yield _told(one.reason, one.message)
        for pod in pods:
            for container in (pod.status and pod.status.container_statuses) or []:
                if container.state and container.state.running:
                    yield f"waiting: {self._wanted.health_path} does not answer with success"
                if container.state and container.state.waiting:
                    yield _told(container.state.waiting.reason, container.state.waiting.message)
        for one in conditions:
            if one.type == "Available":
                yield _told(one.reason, one.message)
        yield "waiting for the cluster to start it"

    # --- the API

    @cached_property
    def _client(self) -> ApiClient:
        url = self._settings.kubernetes_api_url
        configuration = Configuration(host=url or None)
        configuration.retries = False  # the supervisor comes again anyway
        if not url:
            _load_access(configuration)
        return ApiClient(configuration)

    @cached_property
    def _apps(self) -> AppsV1Api:
        return AppsV1Api(self._client)

    @cached_property
    def _core(self) -> CoreV1Api:
        return CoreV1Api(self._client)

    def _ask(self, call: Callable[..., T], *, absent: int = 404, **what: Any) -> T | None:
        """What the API answers; None for the status `absent`.

        Raises PermissionError, ConnectionError for what may pass, Unservable for what the API will never accept.
        """
        try:
            return call(
                namespace=self._settings.kubernetes_namespace, _request_timeout=self._timeout_s, **what
            )
        except ApiException as error:
            if error.status == absent:
                return None
            raise _in_plain_words(error) from error
        except HTTPError as error:
            raise ConnectionError(f"Kubernetes does not answer ({type(error).__name__})") from error
        except ValueError as error:
            raise ConnectionError("what answers is not the API of Kubernetes") from error


def _load_access(configuration: Configuration) -> None:
    """Where the cluster is and by which key: as pods are told, otherwise as the kubeconfig says."""
    try:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # has no types
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # has no types
        except config.ConfigException as error:
            raise ConnectionError(f"no cluster is configured: {error}") from error


def _is_going(one: V1Deployment | V1Service | None) -> bool:
    return bool(one and one.metadata and one.metadata.deletion_timestamp)


def _troubles(pod: V1Pod) -> Iterator[str]:
    """What keeps a pod from running."""
    if pod.status is None:
        return
    for container in pod.status.container_statuses or []:
        waiting = container.state and container.state.waiting
        if waiting and waiting.reason not in _STARTING:
            before = container.last_state and container.last_state.terminated
            yield _told(waiting.reason, waiting.message, *(_ending(before) if before else ()))
        if ended := container.state and container.state.terminated:
            yield _told(ended.reason, *_ending(ended))
    for condition in pod.status.conditions or []:
        if condition.reason == "Unschedulable":
            yield _told(condition.reason, condition.message)
    if pod.status.phase == "Failed":
        yield _told(pod.status.reason, pod.status.message)


def _ending(ended: V1ContainerStateTerminated) -> tuple[str, str | None]:
    return f"the server ended with exit code {ended.exit_code}", ended.message


def _told(*parts: str | None) -> str:
    """The cluster's words, as short and clean as a status message has to be."""
    text = ": ".join(part.strip() for part in parts if part)
    return text.replace("\0", "").strip()[:_MESSAGE_CHARS]


def _in_plain_words(error: ApiException) -> Exception:
    try:
        message = str(json.loads(error.body or "")["message"])
    except (ValueError, TypeError, KeyError):
        message = str(error.reason)
    told = _told(message)
    if error.status in (401, 403):
        return PermissionError(f"Kubernetes refuses: {told}")
    if error.status in (400, 422):
        return Unservable(f"Kubernetes does not accept the configuration: {told}")
    return ConnectionError(f"Kubernetes answers {error.status}: {told}" if error.status else told)
