"""gunicorn's threaded worker: slow clients cannot occupy its threads, and whether it lives needs none of them."""

import errno
import selectors
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from app.server.liveness import PEEKED_BYTES, asks_if_live, live_response, respond

_TIME_BUDGET_S = 30.0
"""How long one request may keep a thread waiting, beyond the time that its bytes add."""
_MIN_RESPONSE_S = 1.0
"""The time for a response that starts after the whole budget is used up."""
_WAIT_S = 4.0
"""How often a response whose client takes nothing may look whether it is still wanted."""
_BYTES_PER_S = 16 * 1024
"""The minimum rate of a request and its response: each byte transferred adds its share to the budget."""


class MinimumRateSocket:
    """A connection whose client has to keep a minimum rate; otherwise `recv` and `sendall` raise TimeoutError.

    Only the time in which a thread waits counts, and each request starts with a full budget.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._budget_s = _TIME_BUDGET_S
        self.while_waiting: Callable[[], None] = _wait_on

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 -- the signature of a socket
        """Start a request with a full budget, or release the connection between two requests."""
        self._budget_s, self.while_waiting = _TIME_BUDGET_S, _wait_on
        self._connection.settimeout(_TIME_BUDGET_S if flag else 0)

    def recv(self, size: int) -> bytes:
        """Receive as a socket does, within the budget."""
        began = monotonic()
        try:
            received = self._connection.recv(size)
        except TimeoutError:
            raise _too_slow() from None
        # A longer timeout, which uploads set, extends the limit.
        limit_s = max(_TIME_BUDGET_S, self._connection.gettimeout() or 0)
        self._budget_s += len(received) / _BYTES_PER_S - (monotonic() - began)
        self._budget_s = min(self._budget_s, _TIME_BUDGET_S)
        if self._budget_s < _TIME_BUDGET_S - limit_s:
            raise _too_slow()
        return received

    def sendall(self, content: bytes) -> None:
        """Send as a socket does; the timeout is one for the whole of `content`.

        Calls `while_waiting` whenever the client has taken nothing for a few seconds; what that raises ends it.
        """
        before = self._connection.gettimeout()
        allowed_s = left_s = max(self._budget_s, _MIN_RESPONSE_S) + len(content) / _BYTES_PER_S
        began, unsent = monotonic(), memoryview(content)
        while unsent:
            self._connection.settimeout(min(left_s, _WAIT_S))
            try:
                unsent = unsent[self._connection.send(unsent) :]
            except TimeoutError:
                self.while_waiting()
            left_s = allowed_s - (monotonic() - began)
            if unsent and left_s <= 0:
                self._connection.close()  # A response that broke off cannot be followed by an error response.
                raise _too_slow()
        self._budget_s = min(left_s, _TIME_BUDGET_S)
        self._connection.settimeout(before)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _wait_on() -> None:
    """What most responses do while their client takes nothing."""


def _too_slow() -> TimeoutError:
    # With this number gunicorn treats the client as disconnected and logs no error.
    return TimeoutError(errno.ECONNRESET, "the client is too slow")


class MinimumRateWorker(ThreadWorker):
    """The gthread worker with MinimumRateSocket, and with threads reserved for requests that transfer no file.

    It says that it lives also while all its threads wait, and gives a thread only to a client that has sent something.
    """

    def load_wsgi(self) -> None:
        """Limit what takes long, so that threads stay free.

        Of all transfers a quarter, at least one; of the searches of one caller a half.
        """
        super().load_wsgi()
        threads = self.cfg.threads
        service = self.wsgi.extensions["service"]
        service.transfers.limit = threads - max(1, threads // 4)
        service.searches.limit = max(1, threads // 2)
        self._live_response = live_response(self.wsgi)

    def enqueue_req(self, conn: Any) -> None:
        """Hand a connection to a thread, unless it is a new one that needs none, or none yet."""
        if not isinstance(conn.sock, MinimumRateSocket):
            try:
                received = conn.sock.recv(PEEKED_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait_for_data(conn)
                return
            except OSError:
                received = b""
            if asks_if_live(received):
                respond(conn.sock, self._live_response)
                self.nr_conns -= 1
                conn.close()
                return
            conn.sock = MinimumRateSocket(conn.sock)
        super().enqueue_req(conn)

    def _wait_for_data(self, conn: Any) -> None:
        """Let the event loop enqueue the connection again when it is readable, or close it when that takes too long."""
        conn.timeout = monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        resume = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, resume)

    def handle(self, conn: Any) -> Any:
        """Serve the next request of a connection, in a thread."""
        keeps_alive = super().handle(conn)
        if not keeps_alive:
            # gunicorn waits up to 2 s for the client to close. Closing here keeps that wait out of the one thread
            # that accepts connections.
            conn.close(graceful=True)
        return keeps_alive
