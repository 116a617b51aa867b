"""The periodic tasks that beat enqueues. Two beats at the same time are harmless."""

from typing import Any

from app.config import Settings
from app.dispatch import MAINTENANCE_QUEUE, TaskName

_TICKS_KEPT = 30
"""Ticks after which the message of a sweep expires: a late one is as good, those of an outage must not pile up.

Five minutes by default: the expiry is a time of beat's clock, and that of a worker may differ from it.
"""


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
            "schedule": settings.sweep_seconds,
            "options": {"queue": MAINTENANCE_QUEUE, "expires": settings.sweep_seconds * _TICKS_KEPT},
        },
        "orphan-scan": {
            "task": TaskName.ORPHAN_SCAN.value,
            "schedule": settings.orphan_scan_seconds / _TICKS_PER_SCAN,
            "options": {"queue": MAINTENANCE_QUEUE, "expires": settings.orphan_scan_seconds / 2},
        },
    }
