"""Health checks: the answers that count as healthy, and the deadline."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Thread

import pytest

from app.runtime.deployments.backends.health import health_problem
from tests.support.figures import Within

Answer = Callable[[socket.socket, Event], None]


class Server:
    """Answers each connection as the test chooses, until it is closed."""

    def __init__(self) -> None:
        self.answer: Answer = lambda _connection, _leaving: None
        self.leaving = Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.thread = Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection, suppress(OSError):
                    self.answer(connection, self.leaving)

    def close(self) -> None:
        self.leaving.set()
        with suppress(OSError):  # closed before
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def sending(*parts: bytes) -> Answer:
    def answer(connection: socket.socket, _leaving: Event) -> None:
        connection.recv(4096)
        for part in parts:
            connection.sendall(part)

    return answer


def trickling(first: bytes, again: bytes) -> Answer:
    """A little more every now and then, sooner than any time-out of a single read; five seconds long."""

    def answer(connection: socket.socket, leaving: Event) -> None:
        connection.recv(4096)
        connection.sendall(first)
        for _ in range(100):
            if not leaving.wait(0.05):
                connection.sendall(again)

    return answer


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (sending(b"HTTP/1.1 204 No Content\r\n\r\n"), None),
        (sending(b"HTTP/1.1 503 Busy\r\n\r\n"), "/health answers 503"),
        (sending(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), "/health answers 302"),
        (sending(b"SSH-2.0-OpenSSH\r\n"), "/health does not answer (BadStatusLine)"),
        (sending(), "/health does not answer (RemoteDisconnected)"),
    ],
)
def test_only_success_is_health(server: Server, answer: Answer, problem: str | None) -> None:
    server.answer = answer

    assert health_problem("127.0.0.1", server.port, "/health", within_s=10) == problem


@pytest.mark.parametrize(
    ("first", "again"), [(b"", b"H"), (b"HTTP/1.1 200 OK\r\n", b"X"), (b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n")]
)
def test_a_server_that_trickles_its_answer_does_not_block_its_supervisor(
    server: Server, first: bytes, again: bytes, within: Within
) -> None:
    server.answer = trickling(first, again)
    started = time.monotonic()

    problem = health_problem("127.0.0.1", server.port, "/health", within_s=0.3)

    within("a trickling answer: given up", time.monotonic() - started, 2)
    assert problem == "/health does not answer (TimeoutError)"


def test_a_body_without_end_is_not_read(server: Server) -> None:
    server.answer = trickling(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100_000)

    assert health_problem("127.0.0.1", server.port, "/health", within_s=10) is None


def test_where_nobody_listens_nobody_answers(server: Server) -> None:
    server.close()

    problem = health_problem("127.0.0.1", server.port, "/health", within_s=10)

    assert problem == "/health does not answer (ConnectionRefusedError)"
