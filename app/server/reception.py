"""The reception: the event loop receives each request, and a thread is taken only when nothing of it is awaited."""

import selectors
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any

from app.http.transfers.limits import Transfers
from app.server.arrival import MAX_HEAD_BYTES, Arrival, Head, Malformed
from app.server.liveness import asks_if_live
from app.server.rejected import response

_HEAD_S = 5.0
"""The time for request line and headers, from the first of their bytes."""
_BODY_S = 10.0
"""The time for a small body."""
_PLACE_S = 40.0
"""How long a transfer waits for a place: its client would give up after a minute."""
_CLOSE_S = 2.0
"""How long a client may take to read its last response before the connection is closed."""
_MOST_WAITING = 256
"""Transfers that wait at the same time. Each may hold SMALL_BODY_BYTES of memory and an open file."""
_PIECE = 64 * 1024
_LOOK_S = 0.2
"""How often deadlines are looked at."""


class Reception:
    """Requests and closed connections that have no thread. Everything here is called by the event loop's thread.

    `serve` takes a request of which enough was received, `drop` a connection that is over. Both get it once.
    """

    def __init__(
        self,
        poller: selectors.BaseSelector,
        transfers: Transfers,
        *,
        is_transfer: Callable[[str, str], bool],
        live_response: bytes,
        serve: Callable[[Any, bytes], None],
        drop: Callable[[Any], None],
    ) -> None:
        self._poller, self._transfers = poller, transfers
        self._is_transfer, self._live_response = is_transfer, live_response
        self._serve, self._drop = serve, drop
        self._arrivals: set[Arrival] = set()
        self._waiting: deque[Arrival] = deque()
        self._looked_at = 0.0
        self._is_stopping = False

    def receive(self, connection: Any, received: bytes = b"") -> None:
        """Receive a request, of which some bytes may have been received already."""
        connection.sock.settimeout(0)
        arrival = Arrival(connection, monotonic() + (_CLOSE_S if self._is_stopping else _HEAD_S))
        self._arrivals.add(arrival)
        if received:
            self._take(arrival, received)
        else:
            self._read(arrival)
        if arrival in self._arrivals and not arrival.is_waiting:
            self._poll(arrival)

    def close(self, connection: Any) -> None:
        """Close a connection when its client has read its last response, or has taken too long for that."""
        arrival = Arrival(connection, monotonic() + _CLOSE_S, is_closing=True)
        self._arrivals.add(arrival)
        try:
            connection.sock.settimeout(0)
            connection.sock.shutdown(socket.SHUT_WR)
            self._poll(arrival)
        except (OSError, ValueError):  # It is closed, or its client is gone.
            self._end(arrival)

    def give_places(self) -> None:
        """Let transfers go on that have waited longest, as many as there are places."""
        while self._waiting and self._transfers.begin():
            arrival = self._waiting.popleft()
            arrival.connection.sock.has_place = True
            self._pass_on(arrival)

    def expire(self) -> None:
        """Refuse, or close, what has taken too long."""
        now = monotonic()
        if now < self._looked_at + _LOOK_S:
            return
        self._looked_at = now
        for arrival in [each for each in self._arrivals if each.deadline <= now]:
            if arrival.is_waiting:
                self._refuse(arrival, HTTPStatus.SERVICE_UNAVAILABLE, _BUSY)
            elif arrival.head:
                self._refuse(arrival, HTTPStatus.REQUEST_TIMEOUT, "The body was sent too slowly.")
            else:
                self._end(arrival)

    def stop(self) -> None:
        """Refuse what waits for a place, and give all others no more than a moment. Idempotent."""
        if self._is_stopping:
            return
        self._is_stopping = True
        soon = monotonic() + _CLOSE_S
        for arrival in list(self._arrivals):
            arrival.deadline = min(arrival.deadline, soon)
            if arrival.is_waiting:
                self._refuse(arrival, HTTPStatus.SERVICE_UNAVAILABLE, _STOPPING)

    # --- one arrival --------------------------------------------------------------------------------------

    def _read(self, arrival: Arrival, _: Any = None) -> None:
        try:
            piece = arrival.connection.sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._end(arrival)
        elif not arrival.is_closing:
            self._take(arrival, piece)

    def _take(self, arrival: Arrival, piece: bytes) -> None:
        try:
            had_head = arrival.head
            arrival.take(piece)
        except Malformed:
            if len(arrival.received) > MAX_HEAD_BYTES:
                self._refuse(
                    arrival, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large."
                )
            else:
                self._refuse(
                    arrival, HTTPStatus.BAD_REQUEST, "The headers are malformed: end each line with CRLF."
                )
            return
        if arrival.head and not had_head:
            self._begin(arrival, arrival.head)
        elif arrival.is_complete:
            self._pass_on(arrival)

    def _begin(self, arrival: Arrival, head: Head) -> None:
        """What happens next to a request whose head has been received."""
        if asks_if_live(bytes(arrival.received)):
            self._answer(arrival, self._live_response)
        elif not head.has_small_body or self._is_transfer(head.method, head.path):
            self._let_wait(arrival)
        elif arrival.is_complete:
            self._pass_on(arrival)
        else:
            arrival.deadline = monotonic() + _BODY_S

    def _let_wait(self, arrival: Arrival) -> None:
        if self._is_stopping:
            self._refuse(arrival, HTTPStatus.SERVICE_UNAVAILABLE, _STOPPING)
        elif len(self._waiting) >= _MOST_WAITING:
            self._refuse(arrival, HTTPStatus.SERVICE_UNAVAILABLE, _BUSY)
        else:
            self._ignore(arrival)  # the rest of the body stays with the client
            arrival.is_waiting, arrival.deadline = True, monotonic() + _PLACE_S
            self._waiting.append(arrival)
            self.give_places()

    def _pass_on(self, arrival: Arrival) -> None:
        self._forget(arrival)
        self._serve(arrival.connection, bytes(arrival.received))

    def _refuse(self, arrival: Arrival, status: HTTPStatus, detail: str) -> None:
        self._answer(arrival, response(status, detail))

    def _answer(self, arrival: Arrival, content: bytes) -> None:
        self._forget(arrival)
        with suppress(OSError):
            arrival.connection.sock.send(content)  # Short enough for an empty buffer.
        self.close(arrival.connection)

    def _end(self, arrival: Arrival) -> None:
        self._forget(arrival)
        self._drop(arrival.connection)

    def _forget(self, arrival: Arrival) -> None:
        self._ignore(arrival)
        self._arrivals.discard(arrival)
        if arrival.is_waiting:
            arrival.is_waiting = False
            with suppress(ValueError):
                self._waiting.remove(arrival)

    def _poll(self, arrival: Arrival) -> None:
        if not arrival.is_polled:
            self._poller.register(arrival.connection.sock, selectors.EVENT_READ, partial(self._read, arrival))
            arrival.is_polled = True

    def _ignore(self, arrival: Arrival) -> None:
        if arrival.is_polled:
            arrival.is_polled = False
            with suppress(OSError, KeyError, ValueError):  # It is closed already.
                self._poller.unregister(arrival.connection.sock)


_BUSY = "All places for files and large lists are taken, and others wait for them; try again."
_STOPPING = "The server is restarting; try again."
