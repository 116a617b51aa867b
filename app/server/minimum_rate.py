"""A connection whose client has to keep a minimum rate."""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

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
        self._has_sent = False
        self.while_waiting: Callable[[], None] = _wait_on
        self.has_place = False
        """Whether the server has counted the request as a transfer before it took a thread."""
        self.is_transfer = False
        """Whether the application has found out that it is one."""
        self.unsent = bytearray()
        """What is left of a response that is no transfer; the event loop sends it."""
        self.is_cut = False
        """Whether the server stops and has taken the rest of the request for lost."""

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 -- the signature of a socket
        """Start a request with a full budget, or release the connection between two requests."""
        self._budget_s, self.while_waiting = _TIME_BUDGET_S, _wait_on
        self.is_transfer = self._has_sent = False
        self._connection.settimeout(_TIME_BUDGET_S if flag else 0)

    @contextmanager
    def body_within(self, seconds: float) -> Iterator[None]:
        """Give the block `seconds` for a body, beyond the time that its bytes add, and then a full budget again."""
        self._budget_s = min(seconds, _TIME_BUDGET_S)
        self._connection.settimeout(self._budget_s)
        yield
        self._budget_s = _TIME_BUDGET_S
        self._connection.settimeout(_TIME_BUDGET_S)

    def recv(self, size: int) -> bytes:
        """Receive as a socket does, within the budget; nothing more once the connection is cut."""
        if self.is_cut:
            return b""
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

        Calls `while_waiting` whenever the client has taken nothing for a few seconds; what that raises ends it. A
        response that is no transfer is there as a whole: what does not fit into the connection becomes `unsent`.
        """
        before = self._connection.gettimeout()
        if not (self.has_place or self.is_transfer):
            self._send_what_fits(content)
            return
        allowed_s = left_s = max(self._budget_s, _MIN_RESPONSE_S) + len(content) / _BYTES_PER_S
        began, unsent, self._has_sent = monotonic(), memoryview(content), True
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

    def _send_what_fits(self, content: bytes) -> None:
        rest, self._has_sent = memoryview(content), True
        before = self._connection.gettimeout()
        self._connection.settimeout(0)
        try:
            while rest and not self.unsent:
                rest = rest[self._connection.send(rest) :]
        except BlockingIOError:
            pass
        finally:
            self._connection.settimeout(before)
        self.unsent += rest

    def cut(self) -> None:
        """End the request, called from another thread: no more is received, and a response that has begun breaks off.

        One that has not begun can still be sent.
        """
        if self.is_cut:
            return
        self.is_cut = True
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR if self._has_sent else socket.SHUT_RD)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def time_for(size: int) -> float:
    """The seconds in which a client has to take so many bytes."""
    return _TIME_BUDGET_S + size / _BYTES_PER_S


def _wait_on() -> None:
    """What most responses do while their client takes nothing."""


def _too_slow() -> TimeoutError:
    # With this number gunicorn treats the client as disconnected and logs no error.
    return TimeoutError(errno.ECONNRESET, "the client is too slow")
