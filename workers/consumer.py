"""The worker's connection to the broker."""

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from structlog.contextvars import bound_contextvars

from app.health.rejections import rejections
from app.logs import explain

logger = logging.getLogger(__name__)

_RECONNECT_SECONDS = 2


class Consumer(CeleryConsumer):
    """A consumer that survives the loss of Redis while a task runs, and messages that nobody can carry out.

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

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Reject a message that Celery cannot carry out, instead of ending the worker."""
        handle = super().create_task_handler(*args, **kwargs)

        def handle_or_reject(message: Any) -> Any:
            try:
                with bound_contextvars(**_request_behind(message)):
                    return handle(message)
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as error:  # noqa: BLE001 -- the boundary to whoever reaches the broker
                rejections.reject(str(message.delivery_info.get("routing_key", "")), explain(error))
                message.reject_log_error(logger, self.connection_errors)
                return None

        return handle_or_reject

    def ensure_connected(self, conn: Any) -> Any:
        """Reconnect every two seconds: Celery's own pauses grow to half a minute, which delays deletions."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=_RECONNECT_SECONDS)
        return super().ensure_connected(conn)


def _request_behind(message: Any) -> dict[str, str]:
    """What stands in the line that a message was received."""
    request_id = message.headers.get("request_id")
    return {"request_id": request_id} if request_id else {}
