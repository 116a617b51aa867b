"""What can serve a deployment: one protocol, and as many implementations as there are places to run a server."""

from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote
from uuid import UUID

from app.lifecycle import DeploymentStatus
from app.models import Deployment, DeploymentConfig

KUBERNETES = "kubernetes"
"""The host on which everything is that runs in the cluster."""


_IN_URLS = "/?&=%:@!$'()*+,;~"
"""What a path with a query may hold as it is, besides letters and digits of ASCII."""


@dataclass(frozen=True)
class DeploymentSpec:
    """One version of a deployment, as its configuration describes it."""

    id: UUID
    workspace: str
    name: str
    version: int
    installation: str = ""
    """Whose it is, where several installations share a cluster."""
    command: tuple[str, ...] = ()
    """What to start; `{port}` stands for the port. Empty where an image knows it."""
    arguments: tuple[str, ...] = ()
    """What to give to it, also where the image knows what to start."""
    port: int = 0
    """Where it shall listen; 0 leaves the choice to the runtime."""
    environment: dict[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    """Answered with 2xx once it can serve."""
    image: str | None = None
    gpus: int = 0
    user: int | None = None
    group: int | None = None
    """As whom it runs, where the runtime can choose that."""

    @classmethod
    def of(
        cls, deployment: Deployment, config: DeploymentConfig, *, workspace: str, installation: str
    ) -> "DeploymentSpec":
        """The spec of `deployment`, in a workspace of that name. Raises InvalidDeploymentSpec."""
        executor = config.executor_config
        override: dict[str, Any] = executor.get("override_config") or {}
        command, port = override.get("command") or [], override.get("port") or 0
        if not (
            isinstance(command, list) and all(isinstance(one, str) and "\0" not in one for one in command)
        ):
            raise InvalidDeploymentSpec("executor_config.override_config.command must be a list of strings")
        if not (isinstance(port, int) and 0 <= port <= 65535):
            raise InvalidDeploymentSpec(
                "executor_config.override_config.port must be a number from 0 to 65535"
            )
        image, tag = executor.get("image_name"), executor.get("image_tag")
        return cls(
            id=deployment.id,
            workspace=workspace,
            name=deployment.name,
            version=deployment.entity_version,
            installation=installation,
            command=tuple(command),
            arguments=tuple(executor.get("additional_args") or ()),
            port=port,
            environment=dict(executor.get("additional_envs") or {}),
            health_path=quote(
                "/" + (executor.get("health_check_path") or "health").lstrip("/"), safe=_IN_URLS
            ),
            image=f"{image}:{tag}" if image and tag else image,
            gpus=executor.get("gpu") or 0,
            user=executor.get("run_as_user"),
            group=executor.get("run_as_group"),
        )


class InvalidDeploymentSpec(Exception):
    """A configuration that this runtime cannot serve, whatever is tried; the message names what to change."""


@dataclass(frozen=True)
class ObservedState:
    """How far a server is: PENDING, READY with its `address`, or ERROR."""

    status: DeploymentStatus
    message: str
    address: str | None = None
    required_address: str | None = None
    """The address that its configuration insists on, while something else has it."""


class Runtime(Protocol):
    """One version of a deployment, as something outside the database runs it.

    Each method returns soon; the supervisor calls again. What cannot be reached for the moment is raised as an
    OSError, what is forbidden as PermissionError.
    """

    def observe(self) -> ObservedState:
        """Bring the server nearer to serving, and tell how far it is. Raises InvalidDeploymentSpec."""

    def stop(self) -> bool:
        """Ask it to end, however often it is called; whether nothing of it is left."""

    def kill(self) -> None:
        """End it at once, waiting a few seconds at most: somebody else supervises it by now."""
