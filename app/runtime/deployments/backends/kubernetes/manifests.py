"""The two Kubernetes objects of a deployment, as one would write them in YAML."""

import math
import re
from typing import Any
from uuid import UUID

from app.config import Settings
from app.runtime.deployments.contract import DeploymentSpec

OURS = "app.kubernetes.io/managed-by=workspaces"
"""Selects the objects of all installations."""
_PORT = 8000


def name_of(deployment_id: UUID) -> str:
    """The name of all objects of one version: it follows from the id, so every worker finds the same objects."""
    return f"ws-{deployment_id.hex}"


def installation_labels(installation: str) -> dict[str, str]:
    """The labels on the objects of one installation; other installations may share the cluster."""
    key, value = OURS.split("=")
    return {key: value, "installation": installation}


class Objects:
    """The Deployment and the Service of one version."""

    def __init__(self, settings: Settings, spec: DeploymentSpec, *, namespace: str) -> None:
        self._settings, self._spec = settings, spec
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
            "terminationGracePeriodSeconds": math.ceil(self._settings.stop_grace_seconds),
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "imagePullSecrets": [{"name": one} for one in self._settings.kubernetes_image_pull_secrets],
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
            "securityContext": self._user
            | {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "resources": self._resources,
            "terminationMessagePolicy": "FallbackToLogsOnError",  # its last output
        }

    @property
    def _user(self) -> dict[str, Any]:
        user, group = self._spec.user, self._spec.group
        chosen: dict[str, Any] = {"runAsUser": user, "runAsGroup": group}
        if user or self._settings.kubernetes_run_as_non_root:
            chosen["runAsNonRoot"] = True
        return {name: value for name, value in chosen.items() if value is not None}

    @property
    def _resources(self) -> dict[str, Any]:
        # Of what cannot be shared, such as GPUs, a limit is the request as well.
        gpus = {"nvidia.com/gpu": str(self._spec.gpus)} if self._spec.gpus else {}
        limits = self._settings.kubernetes_limits | gpus
        return {"requests": self._settings.kubernetes_requests, "limits": limits}

    @property
    def _probes(self) -> dict[str, Any]:
        """The cluster restarts the server after three failed checks in a row, but not during the time for its start."""
        start_s = self._settings.deployment_start_seconds
        check = {"httpGet": {"path": self._spec.health_path, "port": self._port}, "timeoutSeconds": 2}
        during_start = {**check, "periodSeconds": 2, "failureThreshold": math.ceil(start_s / 2)}
        return {
            "startupProbe": during_start,
            "readinessProbe": check,
            "livenessProbe": {**check, "failureThreshold": 3},
        }


def _label(name: str) -> str:
    """A name as a label may hold it, for people who look into the cluster."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).strip("._-")
