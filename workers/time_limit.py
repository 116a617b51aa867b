"""The soft time limit interrupts a task, and nothing else that its process does.

billiard raises the exception of the limit wherever the process is by then: also while it tells the worker the result
of a task. A part of a result ends the worker, and beside a database that hangs many tasks reach their limit.
"""

from typing import Any

from billiard import pool
from billiard.exceptions import SoftTimeLimitExceeded
from celery.signals import task_postrun, task_prerun

_is_at_work = False


@task_prerun.connect
def _begin(**_: Any) -> None:
    global _is_at_work  # noqa: PLW0603 -- a process of the pool carries out one task at a time
    _is_at_work = True


@task_postrun.connect
def _end(**_: Any) -> None:
    global _is_at_work  # noqa: PLW0603 -- as above
    _is_at_work = False


def _interrupt(*_: Any) -> None:
    if _is_at_work:
        raise SoftTimeLimitExceeded


pool.soft_timeout_sighandler = _interrupt  # which each process of a pool installs when it begins
