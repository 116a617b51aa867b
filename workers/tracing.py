"""A span for each task, in the trace of the request that it goes back to."""

from contextlib import ExitStack
from typing import Any

from celery import Task
from celery.signals import task_postrun, task_prerun, worker_process_shutdown
from celery.states import FAILURE

from app.config import load_settings
from app.tracing import ERROR, is_tracing, span, start_tracing, stop_tracing


@task_prerun.connect
def _begin(task: Task, kwargs: dict[str, Any], **_: Any) -> None:
    # Here, because each process of the pool is a fork, and the threads of a runtime worker have no signal of their own.
    start_tracing(load_settings())
    if is_tracing():
        request, open_span = task.request, ExitStack()
        facts = open_span.enter_context(span(task.name, "consumer", traceparent=request.get("traceparent")))
        facts |= {name: value for name, value in kwargs.items() if name.endswith("_id")}
        if request_id := request.get("request_id"):
            facts["request_id"] = request_id
        request.open_span = open_span, facts


@task_postrun.connect
def _end(task: Task, state: str | None, retval: Any, **_: Any) -> None:
    if begun := task.request.get("open_span"):
        open_span, facts = begun
        if state is not None:  # None when the task was broken off
            facts["state"] = state
        if state in (FAILURE, None):
            facts[ERROR] = type(retval).__name__ if isinstance(retval, BaseException) else "interrupted"
        open_span.close()


@worker_process_shutdown.connect
def _stop(**_: Any) -> None:
    # The processes of a pool end without what Python does at exit.
    stop_tracing()
