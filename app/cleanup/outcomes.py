"""How a slice can end."""

from dataclasses import dataclass

from app.cleanup.lease import Claim


@dataclass(frozen=True)
class Idle:
    """Nothing was done: not due, paused, held by another worker, or ended."""

    why: str


@dataclass(frozen=True)
class Advanced:
    """The slice ended with work left, and has enqueued the next one."""

    summary: str


@dataclass(frozen=True)
class Finished:
    """The workspace is gone."""

    summary: str


@dataclass(frozen=True)
class Postponed:
    """Nothing more can be done for now; due again in `retry_in_s` seconds."""

    reason: str
    attempt: int
    retry_in_s: float
    claim: Claim
    before: str
    """What the slice did of other kinds before."""


@dataclass(frozen=True)
class Failed:
    """Given up until the schedule or an administrator reopens it."""

    reason: str
    claim: Claim
    before: str
    """What the slice did of other kinds before."""


Outcome = Idle | Advanced | Finished | Postponed | Failed
