"""Execution profiles: the executors that the operator offers to the steps of jobs."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LIMITS = ("max_memory_bytes", "max_processes", "max_file_bytes")
"""The fields of an execution profile that limit the processes of a step."""


def _environment(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"'{name}' is not a valid variable name, or its value contains NUL")
    return variables


class ExecutionProfile(BaseModel):
    """The executor of steps that name `provider/profile`; it runs them as processes beside the runtime worker.

    `cpu` is for steps written for containers: it runs their entry point and command without their image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["subprocess", "cpu"]
    profile: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9._-]*$")] = "default"
    time_limit_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """Time limit of a step, without pauses; a step over the limit ends its job as `error`. 0 is no limit."""
    stop_grace_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Time between SIGTERM and SIGKILL; replaces the setting of the same name."""
    max_memory_bytes: Annotated[int, Field(ge=1)] | None = None
    """Address space of each process of a step; beyond it, requests for memory fail."""
    max_processes: Annotated[int, Field(ge=1)] | None = None
    """Processes and threads of the runtime worker's user, all its jobs together, beyond which a step starts no more.
    Root has no such limit."""
    max_file_bytes: Annotated[int, Field(ge=0)] | None = None
    """Size of each file that a step writes; a process that writes more gets SIGXFSZ."""
    environment: Annotated[dict[str, str], AfterValidator(_environment)] = {}
    """Environment variables of each step; the step's own variables take precedence."""

    @property
    def name(self) -> str:
        """The profile as users write it."""
        return f"{self.provider}/{self.profile}"

    @property
    def limits(self) -> dict[str, int]:
        """The limits of the processes of a step that are set, by field."""
        limits = {name: getattr(self, name) for name in LIMITS}
        return {name: limit for name, limit in limits.items() if limit is not None}

    @property
    def public_fields(self) -> dict[str, Any]:
        """The public part. Of variables it has only the names: their values may be secrets of the operator."""
        fields: dict[str, Any] = {}
        if self.time_limit_seconds:
            fields["time_limit_seconds"] = self.time_limit_seconds
        if self.stop_grace_seconds is not None:
            fields["stop_grace_seconds"] = self.stop_grace_seconds
        fields |= self.limits
        if self.environment:
            fields["environment"] = sorted(self.environment)
        return fields


USUAL = (ExecutionProfile(provider="subprocess"), ExecutionProfile(provider="cpu"))
"""The profiles if the operator has configured none."""


def distinct(profiles: tuple[ExecutionProfile, ...]) -> tuple[ExecutionProfile, ...]:
    """The same profiles. Raises ValueError if two have the same name."""
    names = [profile.name for profile in profiles]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two profiles are named '{name}'; give each its own name")
    return profiles
