"""What beat rings for. Two beats at once are harmless."""

from typing import Any

from app.config import Settings
from app.dispatch import CLEANUP_QUEUE, TaskName


def beat_schedule(settings: Settings) -> dict[str, Any]:
    """Sweep every few seconds, audit every day."""
    return {
        "sweep": {
            "task": TaskName.SWEEP.value,
            "schedule": settings.sweep_seconds,
            # Ticks expire, so that those of an outage cannot pile up.
            "options": {"queue": CLEANUP_QUEUE, "expires": settings.sweep_seconds},
        },
        "audit": {
            "task": TaskName.ORPHAN_SCAN.value,
            "schedule": settings.orphan_scan_seconds,
            "options": {"queue": CLEANUP_QUEUE, "expires": settings.orphan_scan_seconds / 2},
        },
    }
