"""Calls outside the database, which may hang."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def call_with_timeout(action: Callable[[], T], *, timeout_s: float) -> T | Exception:
    """What `action` returned or raised, or a TimeoutError if it took longer than `timeout_s` seconds.

    It runs in a thread of its own, which is left behind if it hangs: nothing can stop a system call, and
    deletes are idempotent, so one that completes late does no harm.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001 -- handed to the caller, who must not wait for it in vain
            future.set_exception(error)

    Thread(target=run, name="call with time-out", daemon=True).start()
    try:
        raised = future.exception(timeout_s)
    except TimeoutError:
        return TimeoutError(f"no answer within {timeout_s:g} s")
    return raised if isinstance(raised, Exception) else future.result()
