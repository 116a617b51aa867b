"""Checks of what may hang: side by side, each within a time limit, and one thread for each of them."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from threading import Lock, Thread
from typing import Any

_running: dict[tuple[str, int], Future[Any]] = {}
_lock = Lock()


def ask(checks: Mapping[str, Callable[[], Any]], *, of: object, within_s: float) -> dict[str, Any]:
    """By name: what each check of the object `of` returned or raised, or a TimeoutError after `within_s` seconds.

    A check that hangs is left behind in its thread, and who asks the same meanwhile waits for that one.
    """
    asked = {name: _begin((name, id(of)), check) for name, check in checks.items()}
    wait(asked.values(), timeout=within_s)
    late = TimeoutError(f"no answer within {within_s:g} s")
    return {name: _outcome(future) if future.done() else late for name, future in asked.items()}


def _outcome(future: Future[Any]) -> Any:
    return future.exception() or future.result()


def _begin(key: tuple[str, int], check: Callable[[], Any]) -> Future[Any]:
    with _lock:
        if key in _running:
            return _running[key]
        future = _running[key] = Future[Any]()
    thread = Thread(target=_carry_out, args=(key, check, future), name=f"check of {key[0]}", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # the limit of threads is reached: nobody must wait for what never began
        _forget(key)
        future.set_exception(error)
    return future


def _carry_out(key: tuple[str, int], check: Callable[[], Any], future: Future[Any]) -> None:
    try:
        outcome, error = check(), None
    except Exception as raised:  # noqa: BLE001 -- handed to those who wait
        outcome, error = None, raised
    _forget(key)
    if error:
        future.set_exception(error)
    else:
        future.set_result(outcome)


def _forget(key: tuple[str, int]) -> None:
    with _lock:
        del _running[key]
