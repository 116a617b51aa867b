"""The end of a worker with a pool of processes: it comes in bounded time, whatever becomes of the pool."""

import os
import signal
import time
from contextlib import suppress
from threading import Thread
from typing import Any

from celery.bootsteps import StartStopStep
from celery.concurrency.prefork import TaskPool
from celery.platforms import EX_FAILURE

from app.config import load_settings
from app.logs import get_logger
from workers.celery_app import celery

log = get_logger(__name__)

_MARGIN_SECONDS = 10.0
"""How much longer than its longest task a worker may take to end."""


class EndInTime(StartStopStep):
    """Ends a worker that has been stopping for longer than any task may take.

    Celery waits for the results of its pool without a limit. A process that was interrupted while it wrote one leaves
    a part of it, which ends the worker with an error first and then has it wait for the rest: it would take no message,
    and be alive by its heartbeat, for ever.
    It is stopped before what it requires.
    """

    requires = ("celery.worker.components:Pool",)

    def include_if(self, parent: Any) -> bool:
        """Celery's name for whether it applies. Threads may go on for as long as a job that drains."""
        return issubclass(parent.pool_cls, TaskPool)

    def stop(self, parent: Any) -> None:
        """Celery's name for what is done when the worker ends."""
        after_s = load_settings().task_hard_limit_seconds + _MARGIN_SECONDS
        Thread(target=_end, args=[parent, after_s], name="end in time", daemon=True).start()

    terminate = stop


def _end(worker: Any, after_s: float) -> None:
    time.sleep(after_s)
    log.critical("worker.ended_late", seconds=after_s)
    for process in list(worker.pool._pool._pool):  # Celery would ask them to end, and wait
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    os._exit(EX_FAILURE)


celery.steps["worker"].add(EndInTime)
