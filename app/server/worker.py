"""The web server's threads, and the clients that would keep them: gunicorn's worker, less patient than its own."""

import errno
import socket
from time import monotonic
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

_PATIENCE_S = 30.0
"""How long one request may keep a thread waiting, beyond what its bytes earn."""
_LEAST_S = 1.0
"""How long an answer may wait that comes after all patience is used up."""
_BYTES_PER_S = 16 * 1024
"""What earns a client more patience: the slowest that a request may be sent, or its answer taken."""


class MinimumRateSocket:
    """A connection whose other end has to keep a pace; if not, reading and writing end in a TimeoutError.

    Only the time in which a thread waits for it counts, and each request begins anew.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._patience_s = _PATIENCE_S

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 -- as that of a socket
        """A thread takes up the connection with its next request, or leaves it."""
        self._patience_s = _PATIENCE_S
        self._connection.settimeout(_PATIENCE_S if flag else 0)

    def recv(self, size: int) -> bytes:
        """As that of a socket."""
        began = monotonic()
        try:
            received = self._connection.recv(size)
        except TimeoutError:
            raise _too_slow() from None
        # A wait that was allowed, as for an upload, is.
        limit_s = max(_PATIENCE_S, self._connection.gettimeout() or 0)
        self._patience_s += len(received) / _BYTES_PER_S - (monotonic() - began)
        self._patience_s = min(self._patience_s, _PATIENCE_S)
        if self._patience_s < _PATIENCE_S - limit_s:
            raise _too_slow()
        return received

    def sendall(self, content: bytes) -> None:
        """As that of a socket, whose time-out is for the whole of it."""
        before = self._connection.gettimeout()
        allowed_s, began = max(self._patience_s, _LEAST_S) + len(content) / _BYTES_PER_S, monotonic()
        self._connection.settimeout(allowed_s)
        try:
            self._connection.sendall(content)
        except TimeoutError:
            self._connection.close()  # In the middle of an answer there is nothing more to say.
            raise _too_slow() from None
        self._patience_s = min(allowed_s - (monotonic() - began), _PATIENCE_S)
        self._connection.settimeout(before)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _too_slow() -> TimeoutError:
    # By its number a client that has gone away for gunicorn: no trouble of ours that the log should tell.
    return TimeoutError(errno.ECONNRESET, "the client is too slow")


class MinimumRateWorker(ThreadWorker):
    """gthread, with paced connections, and with threads that no transfer of a file can take."""

    def load_wsgi(self) -> None:
        """Tell the application how many transfers leave a quarter of the threads, at least one, to others."""
        super().load_wsgi()
        threads = self.cfg.threads
        self.wsgi.extensions["service"].transfers.limit = threads - max(1, threads // 4)

    def enqueue_req(self, conn: Any) -> None:
        """Hand a connection to a thread."""
        if not isinstance(conn.sock, MinimumRateSocket):
            conn.sock = MinimumRateSocket(conn.sock)
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """Serve the next request of a connection, in a thread."""
        goes_on = super().handle(conn)
        if not goes_on:
            # Here already: gunicorn waits for the client to hang up, for 2 s, and would do so in the one thread that
            # accepts connections.
            conn.close(graceful=True)
        return goes_on
