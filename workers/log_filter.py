"""Keeps sweeps out of the log, unless they found something."""

import logging

from app.dispatch import TaskName

NOTHING_TO_DO = "nothing to do"
"""The result of a sweep that found nothing."""


class _SweepsAreDebug(logging.Filter):
    """Makes Celery's lines of a sweep DEBUG; its last one only where it found nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        facts = record.args
        if isinstance(facts, dict):  # a worker's line of a task
            is_sweep = facts.get("name") == TaskName.SWEEP.value
            is_news = facts.get("return_value", repr(NOTHING_TO_DO)) != repr(NOTHING_TO_DO)
        else:  # beat's, of an entry of the schedule and its task
            is_sweep, is_news = TaskName.SWEEP.value in (facts or ()), False
        if is_sweep and not is_news and record.levelno == logging.INFO:
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        return True


_FILTER = _SweepsAreDebug()


def log_sweeps_at_debug() -> None:
    """Make Celery's lines of a sweep that found nothing DEBUG."""
    for name in ("celery.beat", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).addFilter(_FILTER)  # once, however often this is called
