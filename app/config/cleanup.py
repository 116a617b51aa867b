"""The settings of the cascade and of maintenance."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field, PositiveInt

from app.config.section import Section
from app.config.values import Duration, DurationOrZero


class CleanupSettings(Section):
    """Deletions: when they begin, in what portions, how often they are tried, and what looks after them."""

    deletion_grace: DurationOrZero = 0
    """Seconds between DELETE and the first destruction; until then the deletion can be restored."""
    burst_deletions: Annotated[int, Field(ge=0)] = 5
    """The breaker holds the deletions of a requester only from this many requests within
    `WORKSPACES_BURST_WINDOW_SECONDS` on; 0 disables it. Workspaces younger than the window do not count."""
    burst_share: Annotated[float, Field(gt=0, le=1)] = 0.3334
    """Share of the workspaces older than the window that one requester may delete within it; the breaker holds the
    deletions of one who deletes more."""
    burst_window_seconds: Duration = 600
    """Time window of the breaker."""

    slice_seconds: Duration = 20
    """How long a slice works before it yields to other deletions."""
    lease_seconds: Duration = 60
    """How long a worker that does not renew its lease keeps its deletion before another worker may take it over."""
    item_timeout_seconds: Duration = 10
    """Time limit for one resource; after it the attempt counts as a transient failure."""
    filesets_at_once: Annotated[int, Field(ge=1, le=32)] = 4
    """Number of filesets of one deletion that are deleted from the store at the same time while it answers."""
    page_size: PositiveInt = 100
    """Number of resources that a pass reads at a time."""
    chunk_size: PositiveInt = 1000
    """Number of rows deleted in one transaction, for resources that are only rows."""
    dependency_down_after: PositiveInt = 5
    """Number of transient failures in a row that end a pass, because their dependency is down."""

    max_attempts: PositiveInt = 8
    """Number of attempts without progress after which a deletion is FAILED."""
    backoff_base_seconds: Duration = 2
    """First upper limit of the random wait after an attempt without progress; it doubles with each one."""
    backoff_cap_seconds: Duration = 120
    """Highest upper limit of that wait."""
    waiting_poll_min_seconds: Duration = 2
    """First wait before a pending resource is checked again; it doubles with each check."""
    waiting_poll_max_seconds: Duration = 15
    """Longest wait between two such checks."""
    waiting_limit_seconds: Duration = 900
    """A resource that takes longer than this to stop counts as a transient failure."""
    reattempt_delays_seconds: tuple[Duration, ...] = (600, 3600, 21600, 86400)
    """JSON list of the waits before the scheduled re-attempts of a FAILED deletion; the last one repeats."""
    reattempt_rounds: Annotated[int, Field(ge=0)] = 7
    """Number of scheduled re-attempts before only an operator can continue; 0 for none."""

    sweep_seconds: Duration = 10
    """Time between two sweeps."""
    requeue_after_seconds: Duration = 15
    """Minimum time before the sweep enqueues the same deletion, job or deployment again."""
    orphan_scan_seconds: Duration = 86400
    """Time between two orphan scans."""
    staged_upload_days: Annotated[float, Field(gt=0, le=3650)] = 1
    """Age in days at which the orphan scan collects an unfinished upload."""

    def reattempt_delay(self, finished_rounds: int) -> timedelta | None:
        """The wait before the next scheduled re-attempt, or None after the last round."""
        if finished_rounds >= self.reattempt_rounds:
            return None
        delays = self.reattempt_delays_seconds
        return timedelta(seconds=delays[min(finished_rounds, len(delays) - 1)])
