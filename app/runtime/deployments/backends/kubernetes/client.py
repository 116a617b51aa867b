"""How the API of a cluster is asked, and what its refusals mean."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
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
    """What the API says of one object, in its own words: `NotFound`, or `AlreadyExists`."""

    reason: str
    resource: str
    """As in URLs, such as `deployments`."""
    name: str

    def is_in(self, error: ApiException) -> bool:
        """Whether `error` says just that.

        Its status code alone proves nothing: whatever is in the way, or at a wrong URL, answers 404 as well.
        """
        status = _status_in(error)
        details = status.get("details")
        return (
            (status.get("kind"), status.get("reason")) == ("Status", self.reason)
            and isinstance(details, dict)
            and (details.get("kind"), details.get("name")) == (self.resource, self.name)
        )


class OutcomeUnknown(ConnectionError):
    """Nobody knows whether the API has done what it was asked, or will do so yet."""


class Cluster:
    """The API of the cluster that the settings name. Nothing is asked before it has to be."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.kubernetes_api_url
        # All requests of one look must fit into the lease, or another worker would come between them.
        self._timeout_s = min(_LONGEST_REQUEST_S, settings.runtime_lease_seconds / 10)

    @cached_property
    def apps(self) -> AppsV1Api:
        """Where its Deployments are."""
        return AppsV1Api(self._client)

    @cached_property
    def core(self) -> CoreV1Api:
        """Where its Services and Pods are."""
        return CoreV1Api(self._client)

    def ask(
        self, call: Callable[..., T], *, expected: ExpectedApiError | None = None, **what: Any
    ) -> T | None:
        """What the API answers; None for that one refusal, and for no other.

        Raises PermissionError, ConnectionError for what may pass (Unheard if it may have been done all the same),
        InvalidDeploymentSpec for what the API will never accept.
        """
        try:
            return call(_request_timeout=self._timeout_s, **what)
        except ApiException as error:
            if expected and expected.is_in(error):
                return None
            raise _error_from(error) from error
        except HTTPError as error:
            raise OutcomeUnknown(f"Kubernetes does not answer ({type(error).__name__})") from error
        except ValueError as error:
            raise OutcomeUnknown("what answers is not the API of Kubernetes") from error

    @cached_property
    def _client(self) -> ApiClient:
        configuration = Configuration(host=self._url or None)
        configuration.retries = False  # the supervisor comes again anyway
        if not self._url:
            _load_access(configuration)
        return ApiClient(configuration)


def message_of(*parts: str | None) -> str:
    """The cluster's words, as short and clean as a status message has to be."""
    text = ": ".join(part.strip() for part in parts if part)
    return text.replace("\0", "").strip()[:_MESSAGE_CHARS]


def _load_access(configuration: Configuration) -> None:
    """Where the cluster is and by which key: as pods are told, otherwise as the kubeconfig says."""
    try:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # has no types
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # has no types
        except config.ConfigException as error:
            raise ConnectionError(f"no cluster is configured: {error}") from error


def _status_in(error: ApiException) -> dict[str, Any]:
    """The Status that an answer carries; empty if it is of something else than the API."""
    try:
        status = json.loads(error.body or "")
    except (ValueError, TypeError):
        return {}
    return status if isinstance(status, dict) else {}


def _error_from(error: ApiException) -> Exception:
    words = message_of(str(_status_in(error).get("message") or error.reason))
    if error.status in (401, 403):
        return PermissionError(f"Kubernetes refuses: {words}")
    if error.status in (400, 422):
        return InvalidDeploymentSpec(f"Kubernetes does not accept the configuration: {words}")
    if error.status and error.status < 500:
        return ConnectionError(f"Kubernetes answers {error.status}: {words}")
    return OutcomeUnknown(f"Kubernetes answers {error.status}: {words}" if error.status else words)
