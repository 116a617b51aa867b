"""Responses whose clients take them slowly: the event loop sends what did not fit into the connection at once."""

import selectors
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from app.server.minimum_rate import time_for

_MOST_BYTES = 64 * 1024 * 1024
"""Of all responses together; a client whose response does not fit in is disconnected."""
_STOP_S = 2.0
"""The time for each of them once the server stops."""


@dataclass(eq=False)
class _Rest:
    connection: Any
    deadline: float
    done: Callable[[], None]


class Outbox:
    """Everything here is called by the event loop's thread. `drop` takes a connection that is over."""

    def __init__(self, poller: selectors.BaseSelector, *, drop: Callable[[Any], None]) -> None:
        self._poller, self._drop = poller, drop
        self._rests: set[_Rest] = set()

    def send_rest(self, connection: Any, done: Callable[[], None]) -> None:
        """Send what is left of the response of a connection, then call `done`; or drop the connection."""
        unsent = len(connection.sock.unsent)
        if unsent + sum(len(each.connection.sock.unsent) for each in self._rests) > _MOST_BYTES:
            self._drop(connection)
            return
        rest = _Rest(connection, monotonic() + time_for(unsent), done)
        try:
            connection.sock.settimeout(0)
            self._poller.register(connection.sock, selectors.EVENT_WRITE, partial(self._send, rest))
        except (OSError, ValueError):  # It is closed.
            self._drop(connection)
        else:
            self._rests.add(rest)

    def expire(self) -> None:
        """Drop what has taken too long."""
        now = monotonic()
        for rest in [each for each in self._rests if each.deadline <= now]:
            self._forget(rest)
            self._drop(rest.connection)

    def stop(self) -> None:
        """Give each of them no more than a moment."""
        soon = monotonic() + _STOP_S
        for rest in self._rests:
            rest.deadline = min(rest.deadline, soon)

    def _send(self, rest: _Rest, _: Any) -> None:
        sock = rest.connection.sock
        try:
            del sock.unsent[: sock.send(sock.unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._forget(rest)
            self._drop(rest.connection)
            return
        if not sock.unsent:
            self._forget(rest)
            rest.done()

    def _forget(self, rest: _Rest) -> None:
        self._rests.discard(rest)
        with suppress(OSError, KeyError, ValueError):  # It is closed already.
            self._poller.unregister(rest.connection.sock)
