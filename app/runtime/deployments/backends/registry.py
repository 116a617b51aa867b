"""Which implementation serves a deployment."""

from app.config import Settings
from app.runtime.deployments.backends.kubernetes import NO_CLIENT, has_kubernetes
from app.runtime.deployments.contract import KUBERNETES, DeploymentSpec, InvalidDeploymentSpec, Runtime


def runtime_for(
    settings: Settings, spec: DeploymentSpec, *, host: str | None, namespace: str = ""
) -> Runtime:
    """The runtime of what is, or shall be, on that host, and there in that namespace if it is a cluster.

    Raises InvalidDeploymentSpec if there is none.
    """
    if host == KUBERNETES:
        if not has_kubernetes():
            raise InvalidDeploymentSpec(NO_CLIENT)
        from app.runtime.deployments.backends.kubernetes.backend import KubernetesRuntime  # noqa: PLC0415 -- an optional extra

        return KubernetesRuntime(settings, spec, namespace=namespace)
    from app.runtime.deployments.backends.subprocess import SubprocessRuntime  # noqa: PLC0415 -- both alike

    return SubprocessRuntime(settings, spec)
