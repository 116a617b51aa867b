"""One attempt to send something: why it failed, and the time that it may take."""

import socket
from collections.abc import Callable, Iterator
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
    def ending(self, connection: Callable[[], socket.socket | None]) -> Iterator[None]:
        """Shut the socket of the block down when the deadline comes: what is read or written then fails.

        The time-out of a socket begins anew with each byte: a receiver that trickles would hold its worker for hours.
        """
        timer = Timer(self.left_s, _shut_down, [connection])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _shut_down(connection: Callable[[], socket.socket | None]) -> None:
    if opened := connection():
        with suppress(OSError):
            # Not that of a TLS socket, which would change what another thread is using.
            socket.socket.shutdown(opened, socket.SHUT_RDWR)
