"""Traces: spans of requests, tasks and kinds. Unless they are asked for, nothing of OpenTelemetry is loaded."""

from __future__ import annotations

import atexit
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Literal

from app.config import Settings
from app.logs import explain, get_logger

if TYPE_CHECKING:
    from app.tracing.spans import Tracing

log = get_logger(__name__)

Facts = dict[str, str | int]
"""The attributes of a span, by the names that the same facts have in the log."""

ERROR = "error.type"
"""The fact that makes a span one of an error: the class of an exception, or a status. Never a text."""

_tracing: Tracing | None = None
_has_begun = False
_lock = Lock()  # The tasks of the runtime worker are threads.


def start_tracing(settings: Settings) -> None:
    """Let this process send spans to the collector that `settings` name, if they name one. Idempotent.

    It starts a thread, so it is called after the fork. If a variable of OpenTelemetry is wrong, an ERROR is logged, and
    the process works without spans.
    """
    global _tracing, _has_begun  # noqa: PLW0603 -- one per process
    with _lock:
        if _has_begun or not settings.traces_url:
            return
        _has_begun = True
        from app.tracing.spans import Tracing  # noqa: PLC0415 -- OpenTelemetry is an extra

        try:
            _tracing = Tracing(settings.traces_url)
        except ValueError as error:
            # A traceback would tell no more.
            log.error("traces.not_sent", reason=explain(error), next="mend the variable OTEL_…")  # noqa: TRY400
        else:
            atexit.register(stop_tracing)


def stop_tracing() -> None:
    """Send what has ended, for a second at most: for a process that is about to end. What is left then is lost."""
    global _tracing, _has_begun
    with _lock:
        ended, _tracing, _has_begun = _tracing, None, False
    if ended:
        ended.stop()


def is_tracing() -> bool:
    """Whether this process sends spans."""
    return _tracing is not None


def span(
    name: str,
    kind: Literal["server", "consumer", "internal"] = "internal",
    *,
    traceparent: str | None = None,
) -> AbstractContextManager[Facts]:
    """A span around the block, whose facts are what the block puts into the dict that it gets.

    It continues the trace of `traceparent`, if that is one, or is a part of the span around it. Each line that the
    block logs has its `trace_id`. An exception that leaves the block is told by its class alone: its text may have
    what users have stored.
    """
    tracing = _tracing  # another thread may stop it
    return tracing.span(name, kind, traceparent) if tracing else nullcontext({})


def current_traceparent() -> str | None:
    """What lets another process continue the present span: a `traceparent` as W3C defines it. None outside of spans."""
    tracing = _tracing
    return tracing.traceparent() if tracing else None
