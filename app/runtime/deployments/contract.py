"""The contract of a runtime that serves deployments; each backend implements it for one kind of place."""

from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote
from uuid import UUID

from app.lifecycle import DeploymentStatus
from app.models import Deployment, DeploymentConfig
from app.models.deployment import CLUSTER

KUBERNETES = CLUSTER
"""The host of what this runtime serves in the cluster."""

_IN_URLS = "/?&=%:@!$'()*+,;~"
"""Characters that stay unquoted in a path with a query, besides ASCII letters and digits."""


@dataclass(frozen=True)
class DeploymentSpec:
    """One version of a deployment, as its configuration describes it."""

    id: UUID
    workspace: str
    name: str
    version: int
    installation: str = ""
    """The installation that owns it: several may share a cluster."""
    command: tuple[str, ...] = ()
    """The command to start; `{port}` stands for the port. Empty if the image defines it."""
    arguments: tuple[str, ...] = ()
    """Arguments of the command, also of one that the image defines."""
    port: int = 0
    """The port to listen on; 0 leaves the choice to the runtime."""
    environment: dict[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    """The path that answers 2xx once the server can serve."""
    image: str | None = None
    gpus: int = 0
    user: int | None = None
    group: int | None = None
    """The user and group that it runs as, where the runtime can choose them."""

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
    """A configuration that this runtime can never serve; the message names the field to change."""


@dataclass(frozen=True)
class ObservedState:
    """The state of a server: PENDING, or READY with its `address`."""

    status: DeploymentStatus
    message: str
    address: str | None = None
    required_address: str | None = None
    """The address that its configuration requires, while another server has it."""
    is_healthy: bool = field(default=False, compare=False)
    """Whether the health check of a server that is READY passes. One that fails may pass again: it stays READY."""
    details: str = field(default="", compare=False)
    """What else a person needs to know if it is given up in this state."""


class Runtime(Protocol):
    """One version of a deployment, as it runs outside the database.

    Each method returns soon; the supervisor calls again. Raises OSError if the place cannot be reached for the
    moment, and PermissionError if it refuses access.
    """

    def observe(self) -> ObservedState:
        """Take the next step towards serving; the state after it. Raises InvalidDeploymentSpec."""

    def stop(self) -> bool:
        """Ask the server to end; whether nothing of it is left. May be called any number of times."""

    def kill(self) -> None:
        """End the server within a few seconds, because another supervisor may have it by now."""
