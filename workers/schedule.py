"""The periodic tasks that beat enqueues. Two beats at the same time are harmless.

None depends on what time a host says it is. Beat counts by a clock that nobody sets, and no message expires: it would
by the clock of beat's host, and a worker would throw it away by that of its own.
"""

import time
from datetime import UTC, datetime
from typing import Any

from celery.schedules import schedule

from app.config import Settings
from app.dispatch import MAINTENANCE_QUEUE, TaskName

_TICKS_PER_SCAN = 24
"""How often within the interval of the orphan scan beat asks for one.

Beat remembers nothing over a restart, and would never come to the end of a long interval if it is restarted often. When
the last scan was is in the database, and a message that comes before it is time does nothing.
"""


def beat_schedule(settings: Settings) -> dict[str, Any]:
    """A sweep every few seconds, and every hour a look whether the daily orphan scan is due."""
    return {
        "sweep": {
            "task": TaskName.SWEEP.value,
            "schedule": schedule(settings.sweep_seconds, nowfun=_steady_now),
            "options": {"queue": MAINTENANCE_QUEUE},
        },
        "orphan-scan": {
            "task": TaskName.ORPHAN_SCAN.value,
            "schedule": schedule(settings.orphan_scan_seconds / _TICKS_PER_SCAN, nowfun=_steady_now),
            "options": {"queue": MAINTENANCE_QUEUE},
        },
    }


def _steady_now() -> datetime:
    """A time that is no date, and never jumps: after a clock was set back, beat would be silent for as long."""
    return datetime.fromtimestamp(time.monotonic(), UTC)
