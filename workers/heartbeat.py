"""The heartbeats of workers and of beat: threads of their main processes."""

import socket
from typing import Any

from celery.signals import beat_init, worker_ready

from app.config import load_settings
from app.dispatch import CLEANUP_QUEUE, MAINTENANCE_QUEUE, NOTIFY_QUEUE, RUNTIME_QUEUE
from app.health.heartbeat import Process, start_heart
from app.health.rejections import rejections
from app.runtime.hosts.startup import hosts_of
from workers.host import job_slots

_BY_QUEUE = {
    CLEANUP_QUEUE: Process.CLEANUP,
    MAINTENANCE_QUEUE: Process.MAINTENANCE,
    NOTIFY_QUEUE: Process.NOTIFY,
    RUNTIME_QUEUE: Process.RUNTIME,
}


@worker_ready.connect
def _start_that_of_a_worker(sender: Any, **_: Any) -> None:
    settings = load_settings()
    for queue, process in _BY_QUEUE.items():
        if queue in sender.app.amqp.queues.consume_from:
            of_runtime = process is Process.RUNTIME
            hosts = hosts_of(settings) if of_runtime else [socket.gethostname()]
            slots = job_slots if of_runtime else lambda: 0
            start_heart(settings, process, hosts, rejected=rejections, job_slots=slots)


@beat_init.connect
def _start_that_of_beat(**_: Any) -> None:
    start_heart(load_settings(), Process.BEAT, [socket.gethostname()])
