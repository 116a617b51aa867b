"""A request that arrives: what is known of it before it takes a thread."""

import re
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

MAX_HEAD_BYTES = 256 * 1024
"""Twice what the largest token takes that clients send: the memory that a connection can take without a thread."""
SMALL_BODY_BYTES = 64 * 1024
"""A body of this size is received before the request takes a thread; a larger one is a transfer."""

_END_OF_HEAD = re.compile(rb"\r\n\r\n")
_BARE_NEWLINE = re.compile(rb"(?<!\r)\n")


class Malformed(Exception):
    """A head that will never end as it has to."""


@dataclass(frozen=True)
class Head:
    """The request line and the headers of a request, as far as they decide when it takes a thread.

    Whatever is wrong with them is found in the thread; `body_bytes` is 0 then.
    """

    method: str
    path: str
    size: int
    """Bytes of the head with the empty line at its end."""
    body_bytes: int | None
    """The announced size of the body; None if it comes in chunks."""
    waits_for_continue: bool

    @classmethod
    def read(cls, received: bytes) -> Self:
        """The head that `received` is."""
        request_line, *fields = received.removeprefix(b"\r\n").split(b"\r\n")
        method, _, rest = request_line.decode("latin-1").partition(" ")
        headers: dict[bytes, list[bytes]] = {}
        for each in fields:
            name, _, value = each.partition(b":")
            headers.setdefault(name.lower(), []).append(value.strip())
        return cls(
            method=method,
            path=unquote(rest.partition(" ")[0].partition("?")[0]),
            size=len(received),
            body_bytes=None if b"transfer-encoding" in headers else _announced(headers),
            waits_for_continue=b"expect" in headers,
        )

    @property
    def has_small_body(self) -> bool:
        """Whether the whole body, which may be empty, can be received before the request takes a thread."""
        if self.body_bytes is None or self.body_bytes > SMALL_BODY_BYTES:
            return False
        return not (self.body_bytes and self.waits_for_continue)


def _announced(headers: dict[bytes, list[bytes]]) -> int:
    values = headers.get(b"content-length", [])
    return int(values[0]) if len(values) == 1 and re.fullmatch(rb"[0-9]{1,18}", values[0]) else 0


@dataclass(eq=False)
class Arrival:
    """A connection without a thread, what was received on it, and how long it may go on like that."""

    connection: Any
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    head: Head | None = None
    is_polled: bool = False
    is_waiting: bool = False
    """Whether nothing but a place for a transfer is missing."""
    is_closing: bool = False
    """Whether it has been answered, and is kept until its client has taken that."""

    def take(self, piece: bytes) -> None:
        """Add what was received. Raises Malformed if the head cannot end any more, or is too large."""
        searched = max(0, len(self.received) - 3)
        self.received += piece
        if self.head:
            return
        if end := _END_OF_HEAD.search(self.received, searched):
            self.head = Head.read(bytes(self.received[: end.end()]))
        elif len(self.received) > MAX_HEAD_BYTES or _BARE_NEWLINE.search(self.received, searched):
            raise Malformed

    @property
    def is_complete(self) -> bool:
        """Whether head and body have been received."""
        if self.head is None or self.head.body_bytes is None:
            return False
        return len(self.received) >= self.head.size + self.head.body_bytes
