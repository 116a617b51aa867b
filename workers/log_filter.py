"""Keeps out of the log what is no news: sweeps that found nothing, and failures that have a line already."""

import logging

from app.dispatch import TaskName

NOTHING_TO_DO = "nothing to do"
"""The result of a sweep that found nothing."""

_EXPECTED = "raised expected"
"""Celery's words for an exception that the task declares: whoever raised it has logged the reason."""


class _NoNewsIsDebug(logging.Filter):
    """Makes Celery's lines DEBUG of a sweep, the last one where it found nothing, and of an expected failure."""

    def filter(self, record: logging.LogRecord) -> bool:
        facts = record.args
        if isinstance(facts, dict):  # a worker's line of a task
            found_nothing = facts.get("return_value", repr(NOTHING_TO_DO)) == repr(NOTHING_TO_DO)
            is_sweep = facts.get("name") == TaskName.SWEEP.value
            is_no_news = (is_sweep and found_nothing) or facts.get("description") == _EXPECTED
        else:  # beat's, of an entry of the schedule and its task
            is_no_news = TaskName.SWEEP.value in (facts or ())
        if is_no_news and record.levelno == logging.INFO:
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        return True


_FILTER = _NoNewsIsDebug()


def log_no_news_at_debug() -> None:
    """Make Celery's lines DEBUG that are no news."""
    for name in ("celery.beat", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).addFilter(_FILTER)  # once, however often this is called
