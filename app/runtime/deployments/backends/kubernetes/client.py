"""Calls the API of the cluster, and translates its errors."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeVar

from kubernetes import config
from kubernetes.client import ApiClient, ApiException, AppsV1Api, Configuration, CoreV1Api
from urllib3.exceptions import HTTPError

from app.config import Settings
from app.runtime.deployments.contract import InvalidDeploymentSpec

_MESSAGE_CHARS = 500
_LONGEST_REQUEST_S = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class ExpectedApiError:
    """An error of the API about one object that the caller expects: `NotFound` or `AlreadyExists`."""

    reason: str
    resource: str
    """The resource as in URLs, such as `deployments`."""
    name: str

    def matches(self, error: ApiException) -> bool:
        """Whether `error` is this error of this object.

        The status code alone proves nothing: a proxy, or another server at a wrong URL, answers 404 as well.
        """
        status = _status_in(error)
        details = status.get("details")
        return (
            (status.get("kind"), status.get("reason")) == ("Status", self.reason)
            and isinstance(details, dict)
            and (details.get("kind"), details.get("name")) == (self.resource, self.name)
        )


class OutcomeUnknown(ConnectionError):
    """The API may have carried out the request, or may still do so."""


class Cluster:
    """The API of a cluster, for all threads. Connects with the first call; see `cluster_of`."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s

    @cached_property
    def apps(self) -> AppsV1Api:
        """The API group of Deployments."""
        return AppsV1Api(self._client)

    @cached_property
    def core(self) -> CoreV1Api:
        """The API group of Services and Pods."""
        return CoreV1Api(self._client)

    def ask(
        self, call: Callable[..., T], *, expected: ExpectedApiError | None = None, **arguments: Any
    ) -> T | None:
        """The answer of the API; None for the expected error, and for no other.

        Raises PermissionError; ConnectionError for errors that may pass, as OutcomeUnknown if the request may have been
        carried out all the same; InvalidDeploymentSpec for requests that the API will never accept.
        """
        try:
            return call(_request_timeout=self._timeout_s, **arguments)
        except ApiException as error:
            if expected and expected.matches(error):
                return None
            if error.status == 401:
                self._forget_credentials()
            raise _error_from(error) from error
        except HTTPError as error:
            raise OutcomeUnknown(f"Kubernetes does not answer ({type(error).__name__})") from error
        except ValueError as error:
            raise OutcomeUnknown("the server that answers is not the Kubernetes API") from error

    def _forget_credentials(self) -> None:
        for name in ("apps", "core", "_client"):
            self.__dict__.pop(name, None)

    @cached_property
    def _client(self) -> ApiClient:
        configuration = Configuration(host=self._url or None)
        configuration.retries = False  # the supervisor calls again anyway
        if not self._url:
            _load_access(configuration)
        return ApiClient(configuration)


def cluster_of(settings: Settings) -> Cluster:
    """The cluster that the settings name. All threads of a process share its connections."""
    # All requests between two renewals must fit into the lease, or another worker could take it meanwhile.
    timeout_s = min(_LONGEST_REQUEST_S, settings.runtime_lease_seconds / 10)
    return _cluster_at(settings.kubernetes_api_url, timeout_s)


@cache
def _cluster_at(url: str, timeout_s: float) -> Cluster:
    return Cluster(url, timeout_s=timeout_s)


def message_of(*parts: str | None) -> str:
    """A status message from the cluster's own texts, shortened and without characters that cannot be stored."""
    text = ": ".join(part.strip() for part in parts if part)
    return text.replace("\0", "").strip()[:_MESSAGE_CHARS]


def _load_access(configuration: Configuration) -> None:
    """Configure URL and credentials: those of a pod, otherwise those of the kubeconfig."""
    try:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # has no types
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # has no types
        except config.ConfigException as error:
            raise ConnectionError(f"no cluster is configured: {error}") from error


def _status_in(error: ApiException) -> dict[str, Any]:
    """The Status object in an answer; empty if the answer is not from the API."""
    try:
        status = json.loads(error.body or "")
    except (ValueError, TypeError):
        return {}
    return status if isinstance(status, dict) else {}


def _may_pass(status: dict[str, Any], text: str) -> bool:
    """Whether an object is forbidden because of what else is there, and not because of who asks."""
    details = status.get("details")
    causes = details.get("causes") or [] if isinstance(details, dict) else []
    is_ending = any(isinstance(one, dict) and one.get("reason") == "NamespaceTerminating" for one in causes)
    return is_ending or "exceeded quota" in text


def _error_from(error: ApiException) -> Exception:
    status = _status_in(error)
    text = message_of(str(status.get("message") or error.reason))
    if error.status == 403 and _may_pass(status, text):
        return ConnectionError(f"Kubernetes refuses for now: {text}")
    if error.status in (401, 403):
        return PermissionError(f"Kubernetes refuses: {text}")
    if error.status in (400, 422):
        return InvalidDeploymentSpec(f"Kubernetes does not accept the configuration: {text}")
    if error.status and error.status < 500:
        return ConnectionError(f"Kubernetes answers {error.status}: {text}")
    return OutcomeUnknown(f"Kubernetes answers {error.status}: {text}" if error.status else text)
