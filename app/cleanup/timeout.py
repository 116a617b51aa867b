"""Calls outside the database, which may hang."""

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from threading import Lock, Thread
from time import monotonic
from typing import Any, Generic, TypeVar
from uuid import UUID

T = TypeVar("T")

MOST_UNANSWERED = 4
"""Calls to one dependency that a process leaves behind; it makes no other before one of them returns."""

_unanswered: dict[tuple[str, UUID], Future[Any]] = {}
"""By dependency and resource, what has begun and has not returned, also if nobody waits for it any more."""
_lock = Lock()


class BegunCall(Generic[T]):
    """A call that has begun, in a thread of its own.

    The thread is left behind if the call hangs: nothing can stop a system call, and deletes are idempotent, so one
    that completes late does no harm.
    """

    def __init__(self, future: "Future[T]", timeout_s: float) -> None:
        self._future, self._timeout_s = future, timeout_s
        self._until = monotonic() + timeout_s

    def outcome(self) -> T | Exception:
        """What the call returned or raised, or a TimeoutError if it takes longer than its time since it began."""
        try:
            raised = self._future.exception(max(0.0, self._until - monotonic()))
        except TimeoutError:
            return TimeoutError(f"no answer within {self._timeout_s:g} s")
        return raised if isinstance(raised, Exception) else self._future.result()


def begin_call(
    action: Callable[[], T],
    *,
    timeout_s: float,
    dependency: str,
    resource_id: UUID,
    at_once: int = MOST_UNANSWERED,
) -> BegunCall[T]:
    """Begin `action`, which gets `timeout_s` seconds.

    It is not tried, and its outcome is a TimeoutError, while the last call for the same resource has not returned, or
    `at_once` to the same dependency have not. Its outcome is a RuntimeError if no thread can be started.
    """
    future: Future[T] = Future()
    if hung := _note(dependency, resource_id, future, at_once):
        future.set_exception(hung)
        return BegunCall(future, timeout_s)

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001 -- handed to the caller, who must not wait for it in vain
            future.set_exception(error)

    # What it logs names the work that it is done for.
    thread = Thread(target=copy_context().run, args=[run], name=f"call to {dependency}", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # the limit of threads is reached; what never began is not unanswered
        future.set_exception(error)
    return BegunCall(future, timeout_s)


def call_with_timeout(
    action: Callable[[], T], *, timeout_s: float, dependency: str, resource_id: UUID
) -> T | Exception:
    """What `action` returned or raised, or a TimeoutError if it took longer than `timeout_s` seconds."""
    return begin_call(action, timeout_s=timeout_s, dependency=dependency, resource_id=resource_id).outcome()


def count_unanswered(dependency: str) -> int:
    """How many calls to a dependency have not returned."""
    with _lock:
        return _count(dependency)


def _note(dependency: str, resource_id: UUID, future: "Future[Any]", at_once: int) -> TimeoutError | None:
    """Take the call down as unanswered, or say why it may not begin."""
    with _lock:
        number = _count(dependency)
        if (dependency, resource_id) in _unanswered:
            return TimeoutError("no answer yet to the last attempt")
        if number >= at_once:
            return TimeoutError(f"not tried: no answer yet to {number} others")
        _unanswered[dependency, resource_id] = future
    return None


def _count(dependency: str) -> int:
    for key in [key for key, future in _unanswered.items() if future.done()]:
        del _unanswered[key]
    return sum(name == dependency for name, _ in _unanswered)
