"""The choice of the backend that serves a deployment."""

from app.config import Settings
from app.runtime.deployments.backends.kubernetes import NO_CLIENT, has_kubernetes
from app.runtime.deployments.contract import KUBERNETES, DeploymentSpec, InvalidDeploymentSpec, Runtime


def runtime_for(
    settings: Settings, spec: DeploymentSpec, *, host: str | None, namespace: str = ""
) -> Runtime:
    """The runtime for a deployment on `host`, and in `namespace` if that is the cluster.

    Raises InvalidDeploymentSpec if the client of the cluster is not installed.
    """
    if host == KUBERNETES:
        if not has_kubernetes():
            raise InvalidDeploymentSpec(NO_CLIENT)
        from app.runtime.deployments.backends.kubernetes.backend import KubernetesRuntime  # noqa: PLC0415 -- an optional extra

        return KubernetesRuntime(settings, spec, namespace=namespace)
    from app.runtime.deployments.backends.subprocess import SubprocessRuntime  # noqa: PLC0415 -- both alike

    return SubprocessRuntime(settings, spec)
