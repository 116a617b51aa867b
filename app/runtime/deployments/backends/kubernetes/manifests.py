"""The two Kubernetes objects of a deployment, as one would write them in YAML."""

import math
import re
from typing import Any
from uuid import UUID

from app.config import Settings
from app.runtime.deployments.contract import DeploymentSpec

_PORT = 8000


def name_of(deployment_id: UUID) -> str:
    """The name of all objects of one version: it follows from the id, so every worker finds the same objects."""
    return f"ws-{deployment_id.hex}"


def installation_labels(installation: str) -> dict[str, str]:
    """The labels on the objects of one installation; other installations may share the cluster."""
    return {"app.kubernetes.io/managed-by": "workspaces", "installation": installation}


class Objects:
    """The Deployment and the Service of one version."""

    def __init__(self, settings: Settings, spec: DeploymentSpec, *, namespace: str) -> None:
        self._spec, self._grace_s = spec, settings.stop_grace_seconds
        self._start_s = settings.deployment_start_seconds
        self._port = spec.port or _PORT
        self.name = name_of(spec.id)
        self.selector = {"app.kubernetes.io/instance": self.name}
        self.address = f"http://{self.name}.{namespace}.svc:{self._port}"

    @property
    def deployment(self) -> dict[str, Any]:
        """The server in one pod; the cluster starts it again when it fails."""
        pod = {
            # It runs code of users: it must not hold a key to the cluster.
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": math.ceil(self._grace_s),
            "containers": [self._container],
        }
        template = {"metadata": {"labels": self._labels}, "spec": pod}
        spec = {"replicas": 1, "selector": {"matchLabels": self.selector}, "template": template}
        return {"metadata": self._metadata, "spec": spec}

    @property
    def service(self) -> dict[str, Any]:
        """Its address inside the cluster."""
        ports = [{"name": "http", "port": self._port, "targetPort": self._port}]
        return {"metadata": self._metadata, "spec": {"selector": self.selector, "ports": ports}}

    @property
    def _metadata(self) -> dict[str, Any]:
        return {"name": self.name, "labels": self._labels}

    @property
    def _labels(self) -> dict[str, str]:
        return {
            **self.selector,
            **installation_labels(self._spec.installation),
            "workspace": _label(self._spec.workspace),
            "deployment": _label(self._spec.name),
            "version": str(self._spec.version),
        }

    @property
    def _container(self) -> dict[str, Any]:
        spec, port = self._spec, str(self._port)
        environment = {**spec.environment, "HOST": "0.0.0.0", "PORT": port}  # noqa: S104 -- in its own pod
        return {
            "name": "server",
            "image": spec.image,
            "command": [part.replace("{port}", port) for part in spec.command],
            "args": [part.replace("{port}", port) for part in spec.arguments],
            "env": [{"name": name, "value": value} for name, value in environment.items()],
            "ports": [{"name": "http", "containerPort": self._port}],
            **self._probes,
            "securityContext": {
                name: number
                for name, number in (("runAsUser", spec.user), ("runAsGroup", spec.group))
                if number is not None
            },
            "resources": {"limits": {"nvidia.com/gpu": str(spec.gpus)}} if spec.gpus else {},
            "terminationMessagePolicy": "FallbackToLogsOnError",  # its last output
        }

    @property
    def _probes(self) -> dict[str, Any]:
        """The cluster restarts the server after three failed checks in a row, but not during the time for its start."""
        check = {"httpGet": {"path": self._spec.health_path, "port": self._port}, "timeoutSeconds": 2}
        during_start = {**check, "periodSeconds": 2, "failureThreshold": math.ceil(self._start_s / 2)}
        return {
            "startupProbe": during_start,
            "readinessProbe": check,
            "livenessProbe": {**check, "failureThreshold": 3},
        }


def _label(name: str) -> str:
    """A name as a label may hold it, for people who look into the cluster."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).strip("._-")
