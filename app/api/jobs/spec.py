"""The specification of a job: its steps and their executors, and where its results go."""

from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from app.config import Settings
from app.config.processes import told_to_users
from app.errors import Unprocessable
from app.http.field_types import Name, VariableName
from app.http.route import Body
from app.services.job_steps import command_of, profile_of

_MOST_SECRETS = 100
"""Variables of a step that get their values from secrets: what starts it has all of them in memory."""


def _bare_name(value: Any) -> Any:
    if not isinstance(value, str):
        return value  # the type of the field refuses it
    name = value.strip()
    if not name:
        raise ValueError("output_location must not be empty; leave it out for a fileset of the job's own")
    if "#" in name:
        raise ValueError("subpath in output_location is not yet supported; name the fileset alone")
    if "/" in name:
        raise ValueError(
            "output_location must be a bare fileset name; the workspace is implied by the request"
        )
    if len(name) > 255:
        raise ValueError("output_location must have at most 255 characters")
    return name


OutputLocation = Annotated[Name, BeforeValidator(_bare_name)]
"""The name of a fileset; white space around it does not count."""


class SecretReference(Body):
    """The name of a secret of the job's workspace, or `workspace/name` of another."""

    name: str


class EnvironmentVariable(Body):
    """An environment variable: a value, or a secret whose value it gets when the step starts."""

    name: VariableName
    value: str | None = None
    from_secret: SecretReference | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.value is None) == (self.from_secret is None):
            raise ValueError("exactly one of 'value' and 'from_secret' must be given")
        return self


class Container(Body):
    """A container to start; without an image, the platform's own."""

    image: str | None = None
    entrypoint: list[str] = Field(default_factory=list)
    command: list[str] = Field(default_factory=list)


class Quantities(Body):
    """Processor and memory, as Kubernetes quantities."""

    cpu: str | None = None
    memory: str | None = None


class Resources(Body):
    """The resources of a step, in the form of Kubernetes."""

    requests: Quantities | None = None
    limits: Quantities | None = None
    num_gpus: Annotated[int, Field(ge=0)] | None = None
    num_nodes: Annotated[int, Field(ge=1)] | None = None
    shm_size: str | None = None


class ContainerExecutor(Body):
    """Runs a container. On a subprocess profile its entry point and command run without the image."""

    provider: Literal["cpu", "gpu", "gpu_distributed"]
    profile: str = "default"
    container: Container
    resources: Resources | None = None


class SubprocessExecutor(Body):
    """Runs a command."""

    provider: Literal["subprocess"]
    profile: str = "default"
    command: Annotated[list[str], Field(min_length=1)]


class Lifecycle(Body):
    """The time limits of a step; 0 means none."""

    staleness_timeout_seconds: Annotated[int, Field(ge=0)] = 0


def _none_as_empty(value: Any) -> Any:
    return [] if value in (None, {}) else value


class StepSpec(Body):
    """One step of a job."""

    name: Name
    executor: Annotated[ContainerExecutor | SubprocessExecutor, Field(discriminator="provider")]
    environment: Annotated[list[EnvironmentVariable], BeforeValidator(_none_as_empty)] = Field(
        default_factory=list, description="Null and `{}` mean none, too."
    )
    config: dict[str, Any] = Field(default_factory=dict)
    lifecycle: Lifecycle = Lifecycle()

    @model_validator(mode="after")
    def _has_distinct_variables(self) -> Self:
        for name, count in Counter(variable.name for variable in self.environment).items():
            if count > 1:
                raise ValueError(f"step '{self.name}' sets the variable '{name}' twice; give it one value")
        if sum(variable.from_secret is not None for variable in self.environment) > _MOST_SECRETS:
            raise ValueError(f"step '{self.name}' has more than {_MOST_SECRETS} variables from secrets")
        return self


def _why_no_profiles(settings: Settings) -> str:
    """The setting that keeps processes off, as one more sentence; empty if some may be started."""
    if settings.runs_processes:
        return ""
    return f" No job can run here: {told_to_users(settings.subprocess_provider)}."


class PlatformSpec(Body):
    """The steps of a job, in the order in which they run."""

    steps: Annotated[list[StepSpec], Field(min_length=1, max_length=100)]
    secrets: list[dict[str, Any]] | None = Field(
        None, description="Null or empty: values are kept by the service of secrets.", exclude=True
    )

    @field_validator("secrets")
    @classmethod
    def _has_no_values(cls, secrets: list[dict[str, Any]] | None) -> None:
        if secrets:
            raise ValueError(
                "no values are kept in a job, which its readers would see: create each secret by POST "
                "/apis/secrets/v2/workspaces/{workspace}/secrets, and name it in from_secret of a variable"
            )

    @model_validator(mode="after")
    def _has_distinct_steps(self) -> Self:
        names = [step.name for step in self.steps]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two steps are named '{name}'; give each step its own name")
        return self

    def check_references(self, settings: Settings) -> None:
        """Raise Unprocessable for an unknown execution profile, or a step without a command."""
        for step in self.steps:
            profile = profile_of(step.executor.model_dump())
            if profile not in settings.profiles:
                raise Unprocessable(
                    f"The execution profile '{profile}' specified in step '{step.name}' does not exist."
                    f"{_why_no_profiles(settings)}"
                )
            command = command_of(step.executor.model_dump())
            if not command:
                raise Unprocessable(
                    f"Step '{step.name}' starts nothing: give its container an entrypoint or a command."
                )
            if not command[0]:
                raise Unprocessable(
                    f"Step '{step.name}' starts nothing: the first part of its command is empty."
                )


class Profile(BaseModel):
    """A kind of executor that a step may name."""

    provider: str
    profile: str
    backend: str
    config: dict[str, Any]


def profiles(settings: Settings) -> list[Profile]:
    """The execution profiles of the settings."""
    return [
        Profile(provider=one.provider, profile=one.profile, backend="subprocess", config=one.public_fields)
        for one in settings.profiles.values()
    ]
