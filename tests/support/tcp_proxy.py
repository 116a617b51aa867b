"""A proxy in front of any server that speaks TCP. It passes all on, or does what networks and dying servers do."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from devstack.processes import HOST
from tests.support.deadlines import DEADLINE_S

_CHUNK = 65536


@dataclass(frozen=True)
class Trouble:
    """What happens to connections, those that are open and those to come."""

    is_reset: bool = False
    is_silent: bool = False
    delay_s: float = 0
    whole_answers: int | None = None


PASSING = Trouble()
DROPPED = Trouble(is_reset=True)
"""Each connection is reset."""
BLACK_HOLE = Trouble(is_silent=True)
"""Connections are accepted and stay open, and nothing passes. It does once this is over, as packets sent again."""


def delayed(seconds: float) -> Trouble:
    """Every piece of data comes later, in either direction."""
    return Trouble(delay_s=seconds)


def truncated(*, whole_answers: int = 0) -> Trouble:
    """Of each connection the first answers come whole, and of the next one only the first half; then it is closed."""
    return Trouble(whole_answers=whole_answers)


class TcpProxy:
    """Listens on `port`, for a server on another port of this host."""

    def __init__(self, upstream: int) -> None:
        self._upstream, self._trouble = upstream, PASSING
        self._loop = asyncio.new_event_loop()
        self._passes = asyncio.Event()
        self._passes.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="TCP proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, HOST, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def suffer(self, trouble: Trouble) -> None:
        """Let connections meet this from now on. Returns once they do."""
        self._run(self._suffer(trouble))

    def close(self) -> None:
        """Reset all connections, and listen no more."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    def _run(self, what):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(DEADLINE_S)

    async def _close(self) -> None:
        self._server.close()
        for task in [*self._tasks]:
            task.cancel()
        for writer in [*self._open]:
            _reset(writer)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _suffer(self, trouble: Trouble) -> None:
        self._trouble = trouble
        if trouble.is_silent:
            self._passes.clear()
        else:
            self._passes.set()
        if trouble.is_reset:
            for writer in [*self._open]:
                _reset(writer)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._passes.wait()
            if not self._trouble.is_reset:
                await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # one of the two has gone, or the proxy closes
        finally:
            self._end(writer)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(HOST, self._upstream)
        self._open.add(to_server)
        ways = [
            asyncio.create_task(self._pass_on(reader, to_server)),
            asyncio.create_task(self._pass_on(from_server, writer, is_answer=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            with suppress(OSError):
                await writer.drain()
                writer.close()  # after what was written to it
                await writer.wait_closed()
        finally:
            self._end(to_server)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        _reset(writer)
        self._open.discard(writer)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        whole = 0
        while data := await reader.read(_CHUNK):
            await self._passes.wait()
            await asyncio.sleep(self._trouble.delay_s)
            limit = self._trouble.whole_answers
            if is_answer and limit is not None and whole >= limit:
                writer.write(data[: len(data) // 2])
                return
            whole += 1
            writer.write(data)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    if (transport := writer.transport).is_closing():
        return
    connection: socket.socket = transport.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


@contextmanager
def in_front_of(port: int) -> Iterator[TcpProxy]:
    """A proxy in front of the server on that port, for the block."""
    proxy = TcpProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
