"""The tasks of the maintenance queue, which has a worker of its own: no load of deletions may keep it waiting."""

from app.dispatch import TaskName
from app.maintenance import orphan_scan
from app.maintenance import sweep as maintenance
from workers.celery_app import celery, context
from workers.log_filter import NO_SCAN_IS_DUE, NOTHING_TO_DO


class StepsFailed(Exception):
    """Some steps of a sweep failed; the log has the reason of each."""


@celery.task(name=TaskName.SWEEP.value, max_retries=0, throws=(StepsFailed,))
def sweep() -> str:
    """Reopen what may be tried again, and enqueue what is due."""
    if maintenance.has_just_swept(context()):
        return NOTHING_TO_DO
    swept = maintenance.sweep(context())
    if swept.failed:
        raise StepsFailed(str(swept))
    return NOTHING_TO_DO if swept.found_nothing else str(swept)


@celery.task(name=TaskName.ORPHAN_SCAN.value, max_retries=0, throws=(orphan_scan.OrphansFound,))
def scan_for_orphans() -> str:
    """Go on with the orphan scan, or begin one if it is time; fail at its end if anything is left over."""
    return orphan_scan.run_slice(context()) if orphan_scan.is_due(context()) else NO_SCAN_IS_DUE
