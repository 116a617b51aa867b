"""The worker's connection to the broker."""

from contextlib import suppress
from functools import partial
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

_RECONNECT_SECONDS = 2


class Consumer(CeleryConsumer):
    """A consumer that survives the loss of Redis while a task runs.

    Celery 5.7.0 collects the connection and then closes it. The channel that `collect` leaves makes `close`
    restore messages through a transport that is gone, and the worker exits with AttributeError.
    """

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Drop the dead channel before Celery closes the connection."""
        connection: Any = self.connection
        if connection is not None:
            with suppress(Exception):  # it is being thrown away
                connection.collect(socket_timeout=5)
            connection._default_channel = None
        super().on_connection_error_after_connected(exc)

    def ensure_connected(self, conn: Any) -> Any:
        """Reconnect every two seconds: Celery's own pauses grow to half a minute, which delays deletions."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=_RECONNECT_SECONDS)
        return super().ensure_connected(conn)
