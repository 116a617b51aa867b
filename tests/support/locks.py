"""Two connections that meet at a lock: acting in the background, and seeing that the act has to wait."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Engine, text

from tests.support.deadlines import DEADLINE_S

T = TypeVar("T")


@contextmanager
def meanwhile(act: Callable[[], T]) -> Iterator["Future[T]"]:
    """Run `act` in a thread of its own; it must be done soon after the block."""
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(act)
        yield task
        task.exception(DEADLINE_S)


def has_to_wait(engine: Engine, task: "Future[T]", *, together: int = 1) -> bool:
    """Whether `task` comes to wait for a lock, as the last of so many together; False as soon as it is done without."""
    deadline = time.monotonic() + DEADLINE_S
    # Of this database: on the same server other processes test something else.
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as observer:
        while time.monotonic() < deadline:
            if task.done():
                return False
            if (observer.scalar(waiting) or 0) >= together:
                return True
    raise TimeoutError("the task neither ended nor came to wait for a lock")
