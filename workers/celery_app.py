"""The Celery application of workers, beat and Flower."""

import sys
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from celery import Celery, Task
from celery.signals import celeryd_init, setup_logging, task_prerun, worker_process_init, worker_ready
from kombu.connection import Connection
from structlog.contextvars import bind_contextvars, clear_contextvars

from app.config import Settings, load_settings
from app.context import Context
from app.db import unfitness
from app.dispatch import CLEANUP_QUEUE, transport_options
from app.logs import configure_logs
from app.store_identity import report_store
from workers.log_filter import log_no_news_at_debug
from workers.schedule import beat_schedule

_TRANSPORT = "workers.transport:Transport"
_WORKER_SOCKET_TIMEOUT_SECONDS = 15  # must exceed the one second of a worker's poll


def configure(settings: Settings) -> Celery:
    """A Celery application with the settings that the guarantees of the cascade depend on."""
    app = Celery("workspaces", broker=settings.broker_url)
    # What kombu calls it in URLs: Flower knows brokers by their scheme, and has no page for one of another name.
    Connection.resolve_aliases[_TRANSPORT] = urlsplit(settings.broker_url).scheme
    app.conf.update(
        broker_transport=_TRANSPORT,
        broker_transport_options=transport_options(
            settings, socket_timeout_seconds=_WORKER_SOCKET_TIMEOUT_SECONDS
        ),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        imports=(
            "workers.cleanup_tasks",
            "workers.maintenance_tasks",
            "workers.notification_tasks",
            "workers.runtime_tasks",
            "workers.heartbeat",
            "workers.ending",
            "workers.time_limit",
            "workers.tracing",
        ),
        task_default_queue=CLEANUP_QUEUE,
        # A message is acknowledged after its work, and delivered again if its process dies.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_retry_on_worker_lost=True,
        # A failure is recorded in the database; another delivery of the message would not help.
        task_acks_on_failure=True,
        task_acks_on_timeout=True,
        task_soft_time_limit=settings.task_soft_limit_seconds,
        task_time_limit=settings.task_hard_limit_seconds,
        task_ignore_result=True,
        task_track_started=True,
        task_serializer="json",
        accept_content=["json"],
        enable_utc=True,
        timezone="UTC",
        worker_prefetch_multiplier=1,
        worker_max_tasks_per_child=200,
        worker_max_memory_per_child=300_000,
        worker_soft_shutdown_timeout=settings.worker_soft_shutdown_seconds,
        worker_enable_soft_shutdown_on_idle=False,
        # The task ends by itself; cancelled, it could run twice at the same time.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=True,
        task_send_sent_event=True,
        worker_hijack_root_logger=False,
        worker_consumer="workers.consumer:Consumer",
        beat_schedule=beat_schedule(settings),
    )
    return app


celery = configure(load_settings())

_context: Context | None = None
_context_lock = Lock()  # The tasks of the runtime worker are threads.


def context() -> Context:
    """The connections of this process."""
    global _context  # noqa: PLW0603 -- one per process, made after the fork
    with _context_lock:
        if _context is None:
            _context = Context.open(load_settings())
        return _context


@celeryd_init.connect
def _refuse_unfit_database(**_: Any) -> None:
    if reason := unfitness(load_settings()):
        print(reason, file=sys.stderr)  # noqa: T201 -- as for every wrong setting: one line, status 2
        raise SystemExit(2)


@worker_process_init.connect
def _forget_inherited_connections(**_: Any) -> None:
    global _context  # noqa: PLW0603 -- a connection must not be shared across a fork
    _context = None


@worker_ready.connect
def _report_store(**_: Any) -> None:
    # With connections of its own, because the processes of the pool must inherit none.
    report_store(Context.open(load_settings()).store)


@task_prerun.connect
def _name_the_work_in_each_line(kwargs: dict[str, Any], task: Task, **_: Any) -> None:
    # Not taken back after the task: Celery's own line about its end comes later.
    clear_contextvars()
    bind_contextvars(**{name: kwargs[name] for name in kwargs if name not in ("attempt", "phase")})
    if request_id := task.request.get("request_id"):
        bind_contextvars(request_id=request_id)


@setup_logging.connect
def _log_like_the_api(**_: Any) -> None:
    configure_logs(load_settings())
    log_no_news_at_debug()
