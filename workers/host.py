"""The life of a runtime worker on its host: its own queue, the processes of earlier workers, and its end."""

import sys
from threading import Condition, Event, Thread
from typing import Any

from celery import Celery
from celery.bootsteps import StartStopStep
from celery.signals import celeryd_after_setup, worker_ready, worker_shutting_down

from app.config import load_settings
from app.db import session_scope
from app.dispatch import RUNTIME_QUEUE, publisher, runtime_queue, send
from app.logs import get_logger
from app.runtime.hosts.startup import (
    hosts_of,
    messages_for_deployments,
    messages_for_hosts,
    reap_unsupervised,
    remove_unowned_runs,
)
from app.runtime.jobs.turns import offer_slot
from app.runtime.processes.leaked_processes import adopt_orphans
from workers.celery_app import celery, context

log = get_logger(__name__)

stopping = Event()
"""Set when what runs here has to end: each supervisor then stops its processes and ends."""

draining = Event()
"""Set when this worker has to stop: nothing more is taken up, and what runs may go on until `stopping` is set."""


class Running:
    """Counts the blocks that run now, one for each task."""

    def __init__(self) -> None:
        self._number, self._changed = 0, Condition()
        self.limit = sys.maxsize
        self.are_many = Event()
        """Set while more than `limit` run."""

    @property
    def is_full(self) -> bool:
        """Whether one more would be more than `limit`."""
        return self._number >= self.limit

    def __enter__(self) -> None:
        self._count(1)

    def __exit__(self, *_: object) -> None:
        self._count(-1)

    def _count(self, change: int) -> None:
        with self._changed:
            self._number += change
            (self.are_many.set if self._number > self.limit else self.are_many.clear)()
            self._changed.notify_all()

    def wait_for_none(self, within_s: float) -> bool:
        """Return once no block runs, or after `within_s` seconds; whether none does."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._number, within_s)


running_jobs, supervised = Running(), Running()


def job_slots() -> int:
    """How many jobs may run here at a time; 0 while none is taken up."""
    return 0 if draining.is_set() or supervised.is_full else load_settings().runtime_job_slots


@celeryd_after_setup.connect
def _listen_for_this_host(instance: Any, **_: Any) -> None:
    app: Celery = instance.app
    if RUNTIME_QUEUE in app.amqp.queues.consume_from:
        # The other half of the threads is for requests, and for new versions of deployments, which the old ones await.
        supervised.limit = max(1, instance.concurrency // 2)
        adopt_orphans()
        for host in hosts_of(load_settings()):
            app.amqp.queues.select_add(runtime_queue(host))
        _send_for_deployments()


def _send_for_deployments() -> None:
    """Before the first message is taken: queued jobs would get the threads of deployments that served until now."""
    settings = load_settings()
    try:
        with session_scope(context().sessions) as session:
            messages = messages_for_deployments(session, hosts_of(settings))
        sender = publisher(settings)
        for message in messages:
            send(sender, message)
    except Exception:
        # The sweep enqueues the same rows later.
        log.exception("runtime.deployments_not_enqueued")


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
        offer_slot(context(), hosts_of(load_settings())[0])
        remove_unowned_runs(context())
    except Exception:
        # The thread ends here. The sweep enqueues the same rows later; unowned runs wait for the next start.
        log.exception("runtime.recovery_failed")


@worker_shutting_down.connect
def _stop_supervisors(**_: Any) -> None:
    draining.set()
    settings = load_settings()
    if settings.runtime_on_stop == "end":
        stopping.set()
    else:
        # In a thread: this is a signal handler. Deployments serve until the last job has ended.
        Thread(target=_drain, args=[settings.runtime_drain_seconds], name="drain", daemon=True).start()


def _drain(within_s: float) -> None:
    if not running_jobs.wait_for_none(within_s):
        log.warning("runtime.drain_time_over", seconds=within_s)
    stopping.set()


class StopSupervisors(StartStopStep):
    """Stops the supervisors of a worker that ends without a signal, as by `celery control shutdown`.

    It is stopped before what it requires: the pool waits for its threads, in which they run.
    """

    requires = ("celery.worker.components:Pool",)

    def stop(self, parent: Any) -> None:
        """Celery's name for what is done when the worker ends."""
        _stop_supervisors(sender=parent)

    terminate = stop


celery.steps["worker"].add(StopSupervisors)
