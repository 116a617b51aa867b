"""The life of a runtime worker on its host: its own queue, the processes of earlier workers, and its end."""

from threading import Event, Thread
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, worker_ready, worker_shutting_down

from app.config import load_settings
from app.db import session_scope
from app.dispatch import RUNTIME_QUEUE, runtime_queue
from app.logs import get_logger
from app.runtime.hosts.startup import hosts_of, messages_for_hosts, reap_unsupervised, remove_unowned_runs
from app.runtime.processes.leaked_processes import adopt_orphans
from workers.celery_app import context

log = get_logger(__name__)

stopping = Event()
"""Set when this worker has to stop: each of its supervisors then stops its processes and ends."""


@celeryd_after_setup.connect
def _listen_for_this_host(instance: Any, **_: Any) -> None:
    app: Celery = instance.app
    if RUNTIME_QUEUE in app.amqp.queues.consume_from:
        adopt_orphans()
        for host in hosts_of(load_settings()):
            app.amqp.queues.select_add(runtime_queue(host))


@worker_ready.connect
def _begin_recovery(sender: Any, **_: Any) -> None:
    if RUNTIME_QUEUE in sender.app.amqp.queues.consume_from:
        # In a thread: a database that does not answer must not keep the worker from its queues.
        Thread(target=_recover, name="recovery of this host", daemon=True).start()


def _recover() -> None:
    try:
        with session_scope(context().sessions) as session:
            messages = messages_for_hosts(session, hosts_of(load_settings()))
        # Before the messages and in this thread: tasks in the queues may occupy every worker thread for days.
        reap_unsupervised(context())
        for message in messages:
            context().publisher.publish(message)
        remove_unowned_runs(context())
    except Exception:
        # The thread ends here. The sweep enqueues the same rows later; unowned runs wait for the next start.
        log.exception("runtime.recovery_failed")


@worker_shutting_down.connect
def _stop_supervisors(**_: Any) -> None:
    stopping.set()
