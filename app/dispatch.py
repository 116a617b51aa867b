"""The only sender of Celery messages. Sending never makes its caller wait.

A message carries no state. If it is lost, the sweep enqueues it again; if it is delivered twice, the second
delivery cannot claim the row.
"""

import os
import queue
import threading
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session
from structlog.contextvars import get_contextvars

from app.config import Settings
from app.db import after_commit
from app.logs import explain, get_logger
from app.tracing import current_traceparent

log = get_logger(__name__)

CLEANUP_QUEUE = "cleanup"
RUNTIME_QUEUE = "runtime"
MAINTENANCE_QUEUE = "maintenance"
NOTIFY_QUEUE = "notify"

_LAST = 9
"""The highest number that a priority can have with Redis."""

_BUFFER_SIZE = 10_000
"""Messages kept while the broker is away; the sweep enqueues again what is dropped beyond that."""


class TaskName(StrEnum):
    """Task names that operators read in Flower, besides `cleanup_task(kind)`."""

    FINALIZE = "workspace.cleanup.finalize"
    SWEEP = "workspace.maintenance.sweep"
    ORPHAN_SCAN = "workspace.maintenance.orphan_scan"
    JOB_RUN = "workspace.job.run"
    DEPLOYMENT_RUN = "workspace.deployment.run"
    DELIVER = "workspace.notifications.deliver"


def cleanup_task(phase: str | None) -> str:
    """Name of the task that cleans `phase`; None is the last step, when only the workspace row is left."""
    return f"workspace.cleanup.{phase}" if phase else TaskName.FINALIZE


@dataclass(frozen=True)
class Message:
    """A task's name, its queue and the readable arguments that Flower shows."""

    task: str
    queue: str
    facts: dict[str, Any]
    priority: int = 0
    """Workers take all messages of a lower number first, from whichever of their queues."""
    request_id: str | None = field(init=False, compare=False, default=None)
    """Of the request that it goes back to, which stands in each line of the log about its work."""
    traceparent: str | None = field(init=False, compare=False, default=None)
    """The span that its work is a part of, if it goes back to a request: what a sweep enqueues begins a trace."""

    def __post_init__(self) -> None:
        if request_id := _request_behind(self.facts):
            object.__setattr__(self, "request_id", request_id)
            object.__setattr__(self, "traceparent", current_traceparent())

    @property
    def headers(self) -> dict[str, str]:
        """What it carries besides the facts."""
        carried = {"request_id": self.request_id, "traceparent": self.traceparent}
        return {name: value for name, value in carried.items() if value}

    @property
    def work(self) -> dict[str, Any]:
        """What lines of the log say of it where no request or task is bound."""
        return {**self.facts, **({"request_id": self.request_id} if self.request_id else {})}


def _request_behind(facts: dict[str, Any]) -> str | None:
    """The request whose work is being done here, unless that is about another deletion, job or deployment."""
    bound = get_contextvars()
    is_other = any(bound.get(name, fact) != fact for name, fact in facts.items() if name.endswith("_id"))
    return None if is_other else bound.get("request_id")


def cleanup_message(deletion_id: UUID, workspace: str, phase: str | None, *, attempt: int = 0) -> Message:
    """The message for a slice of a deletion. `phase` is for operators only; the slice reads the row."""
    # The most interesting facts come first, because Flower's column is narrow.
    facts = {
        "workspace": workspace,
        "attempt": attempt,
        "phase": phase or "finalize",
        "deletion_id": str(deletion_id),
    }
    return Message(cleanup_task(phase), CLEANUP_QUEUE, facts)


def orphan_scan_message() -> Message:
    """The message for the next slice of the orphan scan."""
    return Message(TaskName.ORPHAN_SCAN, MAINTENANCE_QUEUE, {})


def delivery_message(subscription_id: UUID) -> Message:
    """The message that something is to be sent to a subscription. Its URL stands in no message: it may be a secret."""
    return Message(TaskName.DELIVER, NOTIFY_QUEUE, {"subscription_id": str(subscription_id)})


def job_message(job_id: UUID, workspace_id: UUID, name: str, host: str | None = None) -> Message:
    """The message that asks a runtime worker to examine a job: that of `host` if processes may live there."""
    facts = {"job": name, "job_id": str(job_id), "workspace_id": str(workspace_id)}
    # A job that has not begun comes after deployments, which were serving before a worker was restarted, and after
    # requests to stop something.
    return Message(TaskName.JOB_RUN, runtime_queue(host), facts, priority=0 if host else _LAST)


def turn_message(job_id: UUID, workspace_id: UUID, name: str, host: str) -> Message:
    """The message that offers a job slot of `host` to a job that no host has."""
    offer = job_message(job_id, workspace_id, name)
    return replace(offer, queue=runtime_queue(host))


def deployment_message(
    deployment_id: UUID, workspace_id: UUID, name: str, host: str | None = None
) -> Message:
    """The message that asks a runtime worker to examine a deployment: that of `host` if processes may live there."""
    facts = {
        "deployment": name,
        "deployment_id": str(deployment_id),
        "workspace_id": str(workspace_id),
    }
    return Message(TaskName.DEPLOYMENT_RUN, runtime_queue(host), facts)


def runtime_queue(host: str | None) -> str:
    """The queue of the runtime workers of one host, which alone see its processes; without a host, of all workers."""
    return f"{RUNTIME_QUEUE}.{host}" if host else RUNTIME_QUEUE


def readable(facts: dict[str, Any]) -> str:
    """The facts of a task as Flower's args column shows them."""
    return " ".join(f"{name}={value}" for name, value in facts.items())


class TaskPublisher(Protocol):
    """Sends messages: BackgroundPublisher, or a recorder in tests."""

    def publish(self, message: Message) -> None:
        """Enqueue `message` for sending. Returns at once and never raises; the message may be lost."""

    def ping(self) -> None:
        """Raise what the broker's client raises if the broker does not answer within its timeout."""

    def is_empty(self, queue: str) -> bool:
        """Whether no message waits in a queue of the broker. False if the broker does not answer."""

    def lengths(self) -> dict[str, int]:
        """How many messages wait in each queue that belongs to no single host. Raises as `ping` does."""


def notify_after_commit(session: Session, publisher: TaskPublisher, message: Message) -> None:
    """Publish `message` after the surrounding `session_scope` has committed; never if it rolls back."""
    after_commit(session, partial(publisher.publish, message))


class BackgroundPublisher:
    """Publishes messages from one background thread per process, so that no request waits for Redis."""

    def __init__(self, settings: Settings) -> None:
        self._celery = publisher(settings)
        self._buffer: queue.Queue[Message] = queue.Queue(_BUFFER_SIZE)
        self._lock = threading.Lock()
        self._pid = 0

    def publish(self, message: Message) -> None:
        """Enqueue `message` for sending. Returns at once and never raises; the message may be lost."""
        self._start_thread()
        try:
            self._buffer.put_nowait(message)
        except queue.Full:
            log.warning("message.dropped", task=message.task, **message.facts)

    def flush(self, within_s: float = 2.0) -> None:
        """Wait until all messages were sent, or so many seconds: for a process that is about to end."""
        with self._buffer.all_tasks_done:
            self._buffer.all_tasks_done.wait_for(lambda: not self._buffer.unfinished_tasks, within_s)

    def ping(self) -> None:
        """Raise kombu's OperationalError, with the cause, if the broker does not answer within its timeout."""
        with self._celery.connection_for_write() as connection:
            connection.default_channel  # noqa: B018 -- opening one asks the broker

    def is_empty(self, queue: str) -> bool:
        """Whether no message waits in a queue of the broker. False if the broker does not answer."""
        if not self._buffer.empty():
            return False
        try:
            return self._lengths(queue)[queue] == 0
        except Exception:  # noqa: BLE001 -- whatever the client raises at whichever step: nothing is known then
            return False

    def lengths(self) -> dict[str, int]:
        """How many messages wait in each queue that belongs to no single host. Raises as `ping` does."""
        return self._lengths(CLEANUP_QUEUE, RUNTIME_QUEUE, MAINTENANCE_QUEUE, NOTIFY_QUEUE)

    def _lengths(self, *queues: str) -> dict[str, int]:
        with self._celery.connection_for_write() as connection:
            channel = connection.default_channel
            # Not `passive`, which looks for the queue without the prefix of our keys. Redis keeps nothing of it.
            return {queue: int(channel.queue_declare(queue).message_count) for queue in queues}

    def _start_thread(self) -> None:
        # Threads do not survive a fork, so each process starts its own at its first message.
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._publish_for_ever, name="publisher", daemon=True).start()

    def _publish_for_ever(self) -> None:
        while True:
            message = self._buffer.get()
            try:
                send(self._celery, message)
            except OperationalError as error:
                log.warning(
                    "message.lost",
                    task=message.task,
                    error=explain(error.__cause__ or error),
                    **message.work,
                )
            except Exception:
                # The thread must survive: one message that fails must not stop the others.
                log.exception("message.failed", task=message.task, **message.work)
            finally:
                self._buffer.task_done()


def send(celery: Celery, message: Message) -> None:
    """Publish now. Raises kombu's OperationalError if the broker does not answer within its timeout."""
    celery.send_task(
        message.task,
        kwargs=message.facts,
        queue=message.queue,
        priority=message.priority,
        argsrepr=readable(message.facts),
        headers=message.headers,
        retry=False,
    )


def transport_options(settings: Settings, *, socket_timeout_seconds: float) -> dict[str, Any]:
    """The Redis settings that all processes must share in order to see each other's messages."""
    return {
        "visibility_timeout": settings.visibility_timeout_seconds,
        # By default Celery checks for abandoned messages only every hundred seconds.
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # By default a worker that dies while it looks keeps all others from it for five minutes.
        "unacked_mutex_expire": 15,
        "socket_connect_timeout": socket_timeout_seconds,
        "socket_timeout": socket_timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "global_keyprefix": "workspaces:",
    }


def publisher(settings: Settings) -> Celery:
    """A Celery application that only sends, and that fails within a fraction of a second."""
    celery = Celery("workspaces", broker=settings.broker_url, set_as_current=False)
    celery.conf.update(
        broker_transport_options={
            **transport_options(settings, socket_timeout_seconds=settings.publish_timeout_seconds),
            # By default kombu tries to connect again after 2 and 4 s, whatever `retry` says.
            "max_retries": 0,
        },
        task_ignore_result=True,
        task_send_sent_event=True,
        task_serializer="json",
        broker_connection_max_retries=0,
    )
    return celery
