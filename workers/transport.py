"""kombu's transport for Redis, which would end the worker at a message that is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import redis

from app.dispatch import CLEANUP_QUEUE, MAINTENANCE_QUEUE, NOTIFY_QUEUE, RUNTIME_QUEUE
from app.health.rejections import rejections
from workers.envelope import MalformedMessage, executable, unpackable

_TASK_QUEUES = {CLEANUP_QUEUE, MAINTENANCE_QUEUE, NOTIFY_QUEUE, RUNTIME_QUEUE}

_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What kombu's reader of JSON raises."""


class QoS(redis.QoS):
    """The messages that are not acknowledged yet, from which one that cannot be read is taken away.

    One of which the broker does not learn that it is done occupies no place any more: it is delivered again after the
    visibility timeout. Otherwise a worker that has lost as many of them as it has processes takes none for ever.
    """

    def ack(self, delivery_tag: Any) -> None:
        """Acknowledge a message."""
        with self._place_freed_of(delivery_tag):
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu's

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 -- kombu's
        """Put a message back into its queue, or drop it."""
        with self._place_freed_of(delivery_tag):
            super().reject(delivery_tag, requeue)  # type: ignore[no-untyped-call]  # kombu's

    @contextmanager
    def _place_freed_of(self, delivery_tag: Any) -> Iterator[None]:
        try:
            yield
        except self.channel.connection_errors:
            self._quick_ack(delivery_tag)
            raise

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:  # noqa: FBT001, FBT002 -- kombu's
        """Put a message back into its queue."""
        try:
            super().restore_by_tag(tag, client, leftmost)  # type: ignore[no-untyped-call]  # kombu's
        except self.channel.connection_errors:
            raise
        except _UNREADABLE as error:
            rejections.reject("unacked", f"all of it: it is no JSON ({type(error).__name__})")
            self._remove_from_indices(tag).execute()  # type: ignore[no-untyped-call]  # kombu's


class Channel(redis.Channel):
    """A channel that goes on with the next item of a queue when one cannot be read."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu's
        except self.connection_errors:
            raise
        except _UNREADABLE as error:
            rejections.reject("", f"all of it: it is no JSON ({type(error).__name__})")
            return True


class Transport(redis.Transport):
    """The transport of Celery's programs: it rejects a message before the broker waits for its acknowledgement.

    Otherwise the broker would deliver it again and again.
    """

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            is_task = queue.partition(".")[0] in _TASK_QUEUES
            message = executable(message) if is_task else unpackable(message)
        except MalformedMessage as error:
            rejections.reject(queue, str(error))
        else:
            super()._deliver(message, queue)  # type: ignore[no-untyped-call]  # kombu's
