"""Why an attempt of a job ends before its last step has ended well."""

from dataclasses import dataclass, field
from typing import Any

from app.config import Settings


@dataclass(frozen=True)
class Failed:
    """Why an attempt ends as `error`."""

    message: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cancelled:
    """The attempt ends because a request asked for it."""


Ending = Failed | Cancelled


def stopped_message(settings: Settings) -> str:
    """What the owner of a job reads that ended because its runtime worker was stopped."""
    if settings.runtime_on_stop == "end":
        why = "which ends its jobs"
    else:
        why = f"and the job did not end within {settings.runtime_drain_seconds:g} s"
    return (
        f"the runtime worker was stopped, {why} (WORKSPACES_RUNTIME_ON_STOP={settings.runtime_on_stop}); "
        "results were kept; run the job again"
    )
