"""Responses that end when their reader loses the right to them, however slowly it reads."""

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Generic, NoReturn, TypeVar

from flask import has_request_context, request

Chunk = TypeVar("Chunk", bytes, str)

_LOOK_S = 4.0
_PIECE = 64 * 1024
"""The slowest client that the server keeps takes four seconds for so many bytes."""

_DISCARD = struct.pack("ii", 1, 0)
"""SO_LINGER: closing the connection drops what the kernel has not sent yet."""


class BrokenOff(Exception):
    """Raised by the source of a stream that cannot be completed."""


def _environment() -> dict[str, Any]:
    return request.environ if has_request_context() else {}


class RevocableStream(Iterator[Chunk], Generic[Chunk]):
    """The chunks of a response, as long as its reader may have them.

    `is_permitted` is asked every few seconds, also while the client takes nothing. Once it says no, or the source
    raises BrokenOff, the connection is cut, so that the client sees that the response is incomplete. `close` closes
    the source, also if nothing was read.
    """

    def __init__(
        self, chunks: Iterator[Chunk], is_permitted: Callable[[], bool], *, close: Callable[[], None]
    ) -> None:
        self._chunks: Iterator[Chunk] = chunks
        self._is_permitted, self.close = is_permitted, close
        self._connection: Any = _environment().get("gunicorn.socket")
        if self._connection:
            self._connection.while_waiting = self._look
        self._chunk: Chunk | None = None
        self._position = 0
        self._looked_at = monotonic()

    def __next__(self) -> Chunk:
        if monotonic() - self._looked_at >= _LOOK_S:
            self._look()
        while self._chunk is None or self._position >= len(self._chunk):
            self._chunk = None  # not kept while the next one is made
            self._chunk, self._position = self._next_chunk(), 0
        piece = self._chunk[self._position : self._position + _PIECE]
        self._position += _PIECE
        return piece

    def _look(self) -> None:
        self._looked_at = monotonic()
        if not self._is_permitted():
            self._cut()

    def _next_chunk(self) -> Chunk:
        try:
            return next(self._chunks)
        except BrokenOff:
            self._cut()

    def _cut(self) -> NoReturn:
        if self._connection:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD)
        # With this number gunicorn treats the client as disconnected and logs no error.
        raise ConnectionResetError(errno.ECONNRESET, "the rest of the response cannot be sent")
