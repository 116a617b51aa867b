"""An HTTP client that costs little beside the server that it measures, for one connection or many."""

import json
import re
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from bench import NotMeasured
from devstack.processes import HOST

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Answer:
    """A response, and how long it took."""

    status: int
    body: bytes
    took_s: float


class _Connection:
    """One connection, with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._began = 0.0

    def send(self, request: bytes) -> None:
        self._received.clear()
        self._began = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> Answer | None:
        """What has arrived, once it is complete."""
        chunk = self.socket.recv(1 << 18)
        if not chunk:
            raise NotMeasured("the server closed the connection")
        self._received += chunk
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        is_complete = len(body) == int(length[1]) if length else body.endswith(b"0\r\n\r\n")
        if not end or not (is_complete or head.startswith(b"HTTP/1.1 204")):
            return None
        return Answer(int(head[9:12]), bytes(body), time.perf_counter() - self._began)


def exchange(port: int, requests: Iterable[bytes], *, clients: int = 1, until: float = inf) -> list[Answer]:
    """Send the requests over so many connections, each the next one as soon as it has its answer.

    Ends with the requests, or at `until`, a time of `monotonic()`. Raises NotMeasured for an answer that is an error.
    """
    waiting: Iterator[bytes] = iter(requests)
    answers: list[Answer] = []
    with selectors.DefaultSelector() as selector:
        open_ones = [_Connection(port) for _ in range(clients)]

        def send_next(connection: _Connection) -> None:
            request = next(waiting, None) if time.monotonic() < until else None
            if request is None:
                selector.unregister(connection.socket)
            else:
                connection.send(request)

        try:
            for connection in open_ones:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                send_next(connection)
            while selector.get_map():
                for key, _ in selector.select(_TIMEOUT_S):
                    if answer := key.data.receive():
                        answers.append(_accepted(answer))
                        send_next(key.data)
        finally:
            for connection in open_ones:
                connection.socket.close()
    return answers


def _accepted(answer: Answer) -> Answer:
    if answer.status >= 300:
        raise NotMeasured(f"the answer is {answer.status}: {answer.body.decode(errors='replace')[:200]}")
    return answer


@dataclass(frozen=True)
class Caller:
    """Who calls, by way of the gateway."""

    port: int
    headers: str

    def encode(self, method: str, path: str, body: object = None) -> bytes:
        """A request; `body` is JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n{self.headers}"
            f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The answer to one request. Raises NotMeasured if it is an error."""
        (answer,) = exchange(self.port, [self.encode(method, path, body)])
        return json.loads(answer.body) if answer.body else None
