"""One attempt to send something: why it failed, and the time that it may take."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Timer
from time import monotonic


class AttemptFailed(Exception):
    """The receiver has not taken what was sent; the text is for administrators, and names neither URL nor secret."""

    def __init__(self, reason: str, *, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code
        """The status with which it has answered."""


@dataclass(frozen=True)
class Deadline:
    """The end of an attempt, by the monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """The deadline in so many seconds."""
        return cls(monotonic() + seconds)

    @property
    def left_s(self) -> float:
        """The seconds until then, and a little more than none at least."""
        return max(0.001, self.at - monotonic())

    @property
    def is_over(self) -> bool:
        """Whether it has come."""
        return monotonic() >= self.at

    @contextmanager
    def ending(self, opened: socket.socket) -> Iterator[None]:
        """Shut the connection down when the deadline comes: what is read or written in the block then fails.

        The time-out of a socket begins anew with each byte: a receiver that trickles would hold its worker for hours.
        """
        # A duplicate: TLS takes the socket itself away, and has none in its place before the handshake is done.
        with opened.dup() as duplicate:
            timer = Timer(self.left_s, _shut_down, [duplicate])
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
                timer.join()  # otherwise it could shut down what has the number of the duplicate by then


def _shut_down(opened: socket.socket) -> None:
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
