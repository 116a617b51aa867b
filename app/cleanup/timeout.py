"""Calls outside the database, which may hang."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any, TypeVar
from uuid import UUID

T = TypeVar("T")

_MOST_UNANSWERED = 4
"""Calls to one dependency that a process leaves behind; it makes no other before one of them returns."""

_unanswered: dict[tuple[str, UUID], Future[Any]] = {}
_lock = Lock()


def call_with_timeout(
    action: Callable[[], T], *, timeout_s: float, dependency: str, resource_id: UUID
) -> T | Exception:
    """What `action` returned or raised, or a TimeoutError if it took longer than `timeout_s` seconds.

    It runs in a thread of its own, which is left behind if it hangs: nothing can stop a system call, and
    deletes are idempotent, so one that completes late does no harm. While the last call for the same resource
    is left behind, or too many to the same dependency are, the TimeoutError comes at once.
    """
    if hung := _hung(dependency, resource_id):
        return hung
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001 -- handed to the caller, who must not wait for it in vain
            future.set_exception(error)

    Thread(target=run, name=f"call to {dependency}", daemon=True).start()
    try:
        raised = future.exception(timeout_s)
    except TimeoutError:
        with _lock:
            _unanswered[dependency, resource_id] = future
        return TimeoutError(f"no answer within {timeout_s:g} s")
    return raised if isinstance(raised, Exception) else future.result()


def _hung(dependency: str, resource_id: UUID) -> TimeoutError | None:
    with _lock:
        for key in [key for key, future in _unanswered.items() if future.done()]:
            del _unanswered[key]
        if (dependency, resource_id) in _unanswered:
            return TimeoutError("no answer yet to the last attempt")
        if sum(name == dependency for name, _ in _unanswered) >= _MOST_UNANSWERED:
            return TimeoutError(f"not tried: no answer yet to {_MOST_UNANSWERED} others")
    return None
