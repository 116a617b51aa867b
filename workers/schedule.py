"""The periodic tasks that beat enqueues. Two beats at the same time are harmless."""

from typing import Any

from app.config import Settings
from app.dispatch import CLEANUP_QUEUE, TaskName


def beat_schedule(settings: Settings) -> dict[str, Any]:
    """A sweep every few seconds, and an orphan scan every day."""
    return {
        "sweep": {
            "task": TaskName.SWEEP.value,
            "schedule": settings.sweep_seconds,
            # Messages expire, so that those of an outage cannot pile up.
            "options": {"queue": CLEANUP_QUEUE, "expires": settings.sweep_seconds},
        },
        "orphan-scan": {
            "task": TaskName.ORPHAN_SCAN.value,
            "schedule": settings.orphan_scan_seconds,
            "options": {"queue": CLEANUP_QUEUE, "expires": settings.orphan_scan_seconds / 2},
        },
    }
