"""Repeats the outcome of a question to the cluster for a while, instead of asking ten times a second."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0

T = TypeVar("T")


class Repeated(Generic[T]):
    """A question whose outcome, an answer or an OSError, is repeated for a pause.

    Each time in a row that the outcome is the same, the pause doubles, up to two seconds; a new one has none.
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._outcome: T | OSError | None = None
        self._pause_s = self._ask_again_at = 0.0

    def __call__(self, *, at_once: bool = False, is_current: bool = False) -> T:
        """The answer: a new one `at_once`, the last one while it `is_current`, or else as the pause says."""
        outcome = self._outcome
        if outcome is None or at_once or (not is_current and time.monotonic() >= self._ask_again_at):
            outcome = self._ask_now()
        if isinstance(outcome, OSError):
            raise outcome.with_traceback(None)
        return outcome

    def _ask_now(self) -> T | OSError:
        before, self._outcome = self._outcome, None  # any other error is the caller's, and not repeated
        try:
            outcome: T | OSError = self._ask()
        except OSError as error:
            outcome = error
        is_news = (type(before), str(before)) != (type(outcome), str(outcome))
        self._pause_s = 0 if is_news else min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 2 * self._pause_s))
        self._ask_again_at = time.monotonic() + self._pause_s
        self._outcome = outcome
        return outcome
