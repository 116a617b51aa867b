"""Why an attempt of a job ends before its last step has ended well."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Failed:
    """Why an attempt ends as `error`."""

    message: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cancelled:
    """The attempt ends because a request asked for it."""


Ending = Failed | Cancelled

STOPPED = "the runtime worker was stopped"
