"""Settings from the environment, prefix `WORKSPACES_`; a bad value refuses to start."""

import sys
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

NonNegative = Annotated[float, Field(ge=0)]


class Settings(BaseSettings):
    """Every knob of the product. Durations are in seconds, sizes in bytes unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="WORKSPACES_", frozen=True, extra="ignore")

    database_url: str = "postgresql+psycopg://app@127.0.0.1:5432/workspaces"
    broker_url: str = "redis://127.0.0.1:6379/0"
    data_dir: Path = Path(".data")
    storage_url: str = ""
    """Any fsspec URL; empty means the directory `blobs` in `data_dir`."""

    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    metrics_token: str = ""
    """Bearer token that may read /metrics from another host; without it only loopback may."""

    database_pool_size: PositiveInt = 5
    statement_timeout_seconds: PositiveFloat = 5
    delete_lock_timeout_seconds: PositiveFloat = 5
    max_body_bytes: PositiveInt = 4 * 1024 * 1024
    """Largest JSON body accepted; file uploads stream and have no such limit."""

    deletion_grace: NonNegative = 0
    """Seconds between DELETE and the first destruction, in which the deletion can be restored."""
    burst_deletions: Annotated[int, Field(ge=0)] = 1000
    """More deletions than this within `burst_window_seconds` pause destruction; 0 switches the breaker off."""
    burst_window_seconds: PositiveFloat = 600

    slice_seconds: PositiveFloat = 20
    lease_seconds: PositiveFloat = 60
    item_timeout_seconds: PositiveFloat = 10
    page_size: PositiveInt = 100
    """Resources read at a time in a pass."""
    chunk_size: PositiveInt = 1000
    """Rows deleted in one transaction by the kinds that are only rows."""
    dependency_down_after: PositiveInt = 5
    """Transient failures in a row after which the pass ends: whatever is behind them is down."""

    fruitless_passes: PositiveInt = 8
    backoff_base_seconds: PositiveFloat = 2
    backoff_cap_seconds: PositiveFloat = 120
    waiting_poll_min_seconds: PositiveFloat = 2
    waiting_poll_max_seconds: PositiveFloat = 15
    waiting_limit_seconds: PositiveFloat = 900
    reattempt_delays_seconds: tuple[PositiveFloat, ...] = (600, 3600, 21600, 86400)
    """Wait before each scheduled re-attempt of a FAILED deletion; the last one repeats."""
    reattempt_rounds: Annotated[int, Field(ge=0)] = 7

    sweep_seconds: PositiveFloat = 10
    ring_again_seconds: PositiveFloat = 15
    """A due deletion that the sweep rang for is rung for again only after this long."""
    audit_seconds: PositiveFloat = 86400
    staging_days: PositiveFloat = 1
    """Age at which an abandoned upload is collected by the audit."""

    visibility_timeout_seconds: PositiveInt = 600
    task_soft_limit_seconds: PositiveFloat = 45
    task_hard_limit_seconds: PositiveFloat = 55
    worker_soft_shutdown_seconds: PositiveFloat = 20
    publish_timeout_seconds: PositiveFloat = 0.5

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        # A slice may start its last item just before its end, and must still hold the lease after it.
        if self.slice_seconds + self.item_timeout_seconds >= self.task_soft_limit_seconds:
            raise ValueError(
                "slice_seconds + item_timeout_seconds must be less than task_soft_limit_seconds: "
                "shorten the slice or raise the limit"
            )
        if not self.task_soft_limit_seconds < self.task_hard_limit_seconds < self.lease_seconds:
            raise ValueError(
                "task_soft_limit_seconds < task_hard_limit_seconds < lease_seconds must hold: "
                "a task has to be dead before its lease is given to another worker"
            )
        longest_ring = max(self.backoff_cap_seconds, self.waiting_poll_max_seconds)
        if self.visibility_timeout_seconds <= self.task_hard_limit_seconds + longest_ring:
            raise ValueError(
                "visibility_timeout_seconds must exceed task_hard_limit_seconds plus the longest back-off: "
                "Redis would deliver a waiting message twice"
            )
        if not self.reattempt_delays_seconds:
            raise ValueError("reattempt_delays_seconds needs at least one delay")
        if not self.database_url.startswith("postgresql+psycopg://"):
            raise ValueError(
                "database_url must start with postgresql+psycopg://: no other database is supported"
            )
        return self

    @property
    def blob_url(self) -> str:
        """Where filesets keep their bytes, as an fsspec URL."""
        return self.storage_url or (self.data_dir / "blobs").absolute().as_uri()

    def reattempt_delay(self, finished_rounds: int) -> timedelta | None:
        """Wait before the next scheduled re-attempt, or None when all rounds are used up."""
        if finished_rounds >= self.reattempt_rounds:
            return None
        delays = self.reattempt_delays_seconds
        return timedelta(seconds=delays[min(finished_rounds, len(delays) - 1)])


@cache
def load_settings() -> Settings:
    """The settings of this process, read once.

    Exits with status 2 and one line naming the variable when a value is wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "WORKSPACES_" + str(first["loc"][0]).upper() if first["loc"] else "WORKSPACES_*"
        print(f"{name}: {first['msg'].removeprefix('Value error, ')}", file=sys.stderr)  # noqa: T201 -- logging is not set up yet
        raise SystemExit(2) from None
    except Exception as error:  # noqa: BLE001 -- pydantic-settings wraps unparsable lists in its own error
        print(f"WORKSPACES_*: {error}", file=sys.stderr)  # noqa: T201 -- as above
        raise SystemExit(2) from None
