"""Execution profiles: what the steps of jobs may name as their executor, as the operator has set it up."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _environment(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"'{name}' is no name of a variable, or its value has a NUL")
    return variables


class ExecutionProfile(BaseModel):
    """How a step that names `provider/profile` is executed: as a process beside the runtime worker.

    `cpu` is for steps written for containers: their entry point with their command, without their image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["subprocess", "cpu"]
    profile: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9._-]*$")] = "default"
    time_limit_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """A step that runs longer, pauses not counted, is stopped and ends its job as `error`; 0 is no limit."""
    stop_grace_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Between SIGTERM and SIGKILL, instead of the setting of that name."""
    environment: Annotated[dict[str, str], AfterValidator(_environment)] = {}
    """Variables of each step, unless the step has its own of that name."""

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.provider}/{self.profile}"

    @property
    def shown(self) -> dict[str, Any]:
        """What users are told of it; of variables the names, for a value may be a secret of the operator's."""
        told: dict[str, Any] = {}
        if self.time_limit_seconds:
            told["time_limit_seconds"] = self.time_limit_seconds
        if self.stop_grace_seconds is not None:
            told["stop_grace_seconds"] = self.stop_grace_seconds
        if self.environment:
            told["environment"] = sorted(self.environment)
        return told


USUAL = (ExecutionProfile(provider="subprocess"), ExecutionProfile(provider="cpu"))
"""Those there are where the operator has named none."""


def distinct(profiles: tuple[ExecutionProfile, ...]) -> tuple[ExecutionProfile, ...]:
    """The same profiles. Raises ValueError when two have one name."""
    names = [profile.name for profile in profiles]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two profiles are named '{name}'; give each its own name")
    return profiles
