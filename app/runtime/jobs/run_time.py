"""How long an attempt has run, and the limits of that."""

import time
from collections.abc import Mapping
from typing import Any

from app.config import Settings
from app.config.profiles import ExecutionProfile


class RunTime:
    """The clock of one attempt. Time that a job spends paused does not count against its limits."""

    def __init__(self, settings: Settings) -> None:
        self._limit_s = settings.job_time_limit_seconds
        self._started_at = time.monotonic()
        self._step_started_at = self._resumed_at = self._started_at
        self._paused_at: float | None = None

    def start_step(self) -> None:
        """Begin to count the time of a step."""
        self._step_started_at = time.monotonic()

    def pause(self) -> None:
        """Stop the clock, unless it is stopped."""
        self._paused_at = self._paused_at or time.monotonic()

    def resume(self) -> None:
        """Let the clock go on, if it is stopped."""
        if self._paused_at is not None:
            self._resumed_at = time.monotonic()
            self._started_at += self._resumed_at - self._paused_at
            self._step_started_at += self._resumed_at - self._paused_at
            self._paused_at = None

    def job_overrun(self) -> str | None:
        """The message for a job that runs longer than it may; None if it does not, or is paused."""
        if self._limit_s and self._paused_at is None and time.monotonic() - self._started_at > self._limit_s:
            return f"the job ran longer than its time limit of {self._limit_s:g} s"
        return None

    def step_overrun(
        self, step: Mapping[str, Any], profile: ExecutionProfile, *, silence_s: float
    ) -> str | None:
        """The message for a step that runs longer, or has printed nothing for longer, than it may."""
        if self._paused_at is not None:
            return None
        limit, now = profile.time_limit_seconds, time.monotonic()
        if limit and now - self._step_started_at > limit:
            return f"step '{step['name']}' ran longer than {limit:g} s, the time limit of '{profile.name}'"
        staleness_s = (step.get("lifecycle") or {}).get("staleness_timeout_seconds", 0)
        if staleness_s and min(silence_s, now - self._resumed_at) > staleness_s:
            return f"step '{step['name']}' printed nothing for its staleness time-out of {staleness_s} s"
        return None
