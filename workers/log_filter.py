"""Keeps out of the log what is no news: rounds that found nothing to do, and failures that have a line already."""

import logging

from app.dispatch import TaskName

NOTHING_TO_DO = "nothing to do"
"""The result of a sweep that found nothing."""

NO_SCAN_IS_DUE = "it is not time for a scan"
"""The result of an orphan scan that is not due."""

_NOTHING_DONE = {repr(NOTHING_TO_DO), repr(NO_SCAN_IS_DUE)}
_ROUNDS = {TaskName.SWEEP.value, TaskName.ORPHAN_SCAN.value}
"""What beat asks for, whether there is anything to do or not."""

_EXPECTED = "raised expected"
"""Celery's words for an exception that the task declares: whoever raised it has logged the reason."""


class _NoNewsIsDebug(logging.Filter):
    """Makes Celery's lines DEBUG of a round, the last one where it did nothing, and of an expected failure."""

    def filter(self, record: logging.LogRecord) -> bool:
        facts = record.args
        if isinstance(facts, dict):  # a worker's line of a task
            did_nothing = facts.get("return_value", repr(NOTHING_TO_DO)) in _NOTHING_DONE
            is_round = facts.get("name") in _ROUNDS
            is_no_news = (is_round and did_nothing) or facts.get("description") == _EXPECTED
        else:  # beat's, of an entry of the schedule and its task
            is_no_news = any(name in (facts or ()) for name in _ROUNDS)
        if is_no_news and record.levelno == logging.INFO:
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        return True


_FILTER = _NoNewsIsDebug()


def log_no_news_at_debug() -> None:
    """Make Celery's lines DEBUG that are no news."""
    for name in ("celery.beat", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).addFilter(_FILTER)  # once, however often this is called
