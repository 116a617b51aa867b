"""gunicorn's threaded worker: slow clients cannot occupy its threads, and whether it lives needs none of them."""

from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from app.http.views import is_transfer
from app.server.liveness import live_response
from app.server.minimum_rate import MinimumRateSocket
from app.server.outbox import Outbox
from app.server.reception import Reception
from app.server.rejected import rejection_of, response

_STOP_S = 1.0
"""How long transfers go on when the server stops: the address answers nobody until the next server has it."""
_STOP_ROUND_S = 0.2


class MinimumRateWorker(ThreadWorker):
    """The gthread worker with a reception, MinimumRateSocket, and threads reserved for requests that transfer no file.

    A thread is taken only by a request of which nothing but a transfer is still awaited.
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
        self._transfers = service.transfers
        self._served: set[Any] = set()
        self._cut_at: float | None = None
        self._outbox = Outbox(self.poller, drop=self._drop)
        self._reception = Reception(
            self.poller,
            service.transfers,
            is_transfer=partial(is_transfer, self.wsgi),
            live_response=live_response(self.wsgi),
            serve=self._serve,
            drop=self._drop,
        )

    def enqueue_req(self, conn: Any) -> None:
        """Receive the next request of a connection, which may be a new one."""
        if not isinstance(conn.sock, MinimumRateSocket):
            conn.sock = MinimumRateSocket(conn.sock)
        # What was read beyond the last request does not make the socket readable.
        self._reception.receive(conn, conn.parser.unreader.take_buffered() if conn.parser else b"")

    def _serve(self, conn: Any, received: bytes) -> None:
        conn.init()
        conn.data_ready = True
        conn.parser.unreader.unread(received)
        self._served.add(conn)
        super().enqueue_req(conn)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Keep the connection for its next request, or close it: no thread waits until its client has."""
        self._served.discard(conn)
        if conn.sock.has_place:
            conn.sock.has_place = False
            self._transfers.end()
        if conn.sock.unsent:
            self._outbox.send_rest(conn, partial(self._keep_or_close, conn, fs))
        else:
            self._keep_or_close(conn, fs)
        self._reception.give_places()

    def _keep_or_close(self, conn: Any, fs: Any) -> None:
        if not fs.cancelled() and fs.exception() is None and fs.result():
            super().finish_request(conn, fs)
        else:
            self._reception.close(conn)

    def _drop(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Look around more often while the server stops, because the next one waits for that."""
        super().wait_for_and_dispatch_events(timeout if self.alive else min(timeout, _STOP_ROUND_S))

    def murder_pending(self) -> None:
        """End what has taken too long, and transfers that would hold up a restart. Called in each round."""
        if not self.alive:
            self._reception.stop()
            self._outbox.stop()
            self._cut_transfers()
        self._reception.expire()
        self._outbox.expire()

    def _cut_transfers(self) -> None:
        self._cut_at = self._cut_at or monotonic() + _STOP_S
        if monotonic() >= self._cut_at:
            for conn in self._served:
                if conn.sock.has_place or conn.sock.is_transfer:
                    conn.sock.cut()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer an error that the application has not seen in the form of all errors."""
        del req
        if rejection := rejection_of(exc):
            status, detail = rejection.status, rejection.detail
            self.log.warning("Refused a request of %s: %s", (addr or ("",))[0], detail)
        else:
            status, detail = HTTPStatus.INTERNAL_SERVER_ERROR, "An unexpected error occurred."
            self.log.error("Error handling a request", exc_info=exc)
        client.sendall(response(status, detail))
