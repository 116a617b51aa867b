"""Requests that wait, for their clients or for a place, have no thread: a real gunicorn, as it is delivered."""

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from devstack.processes import HOST
from tests.server.wire import FILESETS, WORKSPACES, answer, connect
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Within
from tests.support.stack import Stack

PLACES = 6  # for transfers, of the eight threads of the Procfile


def upload(stack: Stack, connections: ExitStack, name: str, *, length: int) -> socket.socket:
    """An upload of which one byte is there."""
    path = f"{FILESETS}/data/-/{name}"
    return connect(
        stack,
        connections,
        f"PUT {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {length}",
        "",
        rest="x",
    )


def narrow(stack: Stack, connections: ExitStack, *lines: str) -> socket.socket:
    """A connection that takes very little at a time, over which these lines were sent."""
    connection = connections.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(DEADLINE_S)
    connection.connect((HOST, urlsplit(stack.api_url).port))
    connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
    return connection


class Trickle:
    """Sends a byte over each connection again and again, until the block ends."""

    def __init__(self, connections: list[socket.socket]) -> None:
        self._connections, self._is_over = connections, threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._is_over.wait(0.5):
            for connection in self._connections:
                try:
                    connection.sendall(b"x")
                except OSError:
                    continue


def test_sixty_slow_headers_and_sixty_four_waiting_transfers_keep_nobody_waiting(
    stack: Stack, connections: ExitStack, within: Within
) -> None:
    uploads = [upload(stack, connections, f"slow-{number}", length=4) for number in range(PLACES + 64)]
    stack.wait_until(lambda: len(staged(stack)) == PLACES, "all places are taken")
    headers = [connect(stack, connections, "GET / HTTP/1.1", rest="X: ") for _ in range(60)]
    slowest = 0.0

    with Trickle(headers):
        for path in ("/health/live", "/health/ready", WORKSPACES, f"{FILESETS}/data") * 3:
            began = time.monotonic()
            assert httpx.get(f"{stack.api_url}{path}", timeout=DEADLINE_S).is_success
            slowest = max(slowest, time.monotonic() - began)

    assert len(staged(stack)) == PLACES, "they were all there meanwhile"
    within("the slowest answer beside 60 slow headers and 70 uploads", slowest, 1.0)
    for each in uploads:
        each.sendall(b"yyy")
    for number, each in enumerate(uploads):
        assert each.recv(15) == b"HTTP/1.1 200 OK", number


def start_of_answer(connection: socket.socket) -> bytes:
    """Nothing if the connection was closed, also while the client still sent: then its answer may be lost."""
    try:
        return connection.recv(12)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize(
    ("lines", "rest", "status"),
    [
        (["GET / HTTP/1.1", "Host: localhost"], "X-A: ", None),
        ([f"POST {WORKSPACES} HTTP/1.1", "Host: localhost", "Content-Length: 5000", ""], '{"name', 408),
    ],
    ids=["headers", "JSON"],
)
def test_what_arrives_slowly_takes_no_thread_and_is_ended(
    stack: Stack, connections: ExitStack, lines: list[str], rest: str, status: int | None
) -> None:
    """Byte by byte, so that no time-out for silence would end it. An allowance of 30 s did."""
    slow = [connect(stack, connections, *lines, rest=rest) for _ in range(40)]

    with Trickle(slow):
        for _ in range(3):
            assert stack.client.get(f"{WORKSPACES}/default").status_code == 200
        answers = {start_of_answer(each) for each in slow}
    if status:
        assert f"HTTP/1.1 {status}".encode() in answers
    assert answers <= {f"HTTP/1.1 {status}".encode(), b""}


def test_bodies_that_are_too_large_to_wait_for_leave_threads_to_others(
    stack: Stack, connections: ExitStack
) -> None:
    lines = f"POST {WORKSPACES} HTTP/1.1", "Host: localhost", "Content-Type: application/json"
    large = [connect(stack, connections, *lines, "Content-Length: 900000", "", rest="{") for _ in range(20)]
    chunked = [connect(stack, connections, *lines, "Transfer-Encoding: chunked", "") for _ in range(20)]
    expecting = [
        connect(stack, connections, *lines, "Expect: 100-continue", "Content-Length: 9", "")
        for _ in range(20)
    ]

    with Trickle([*large, *chunked, *expecting]):
        for _ in range(3):
            assert stack.client.get(f"{WORKSPACES}/default", timeout=DEADLINE_S).status_code == 200


def test_a_large_body_that_arrives_is_read(stack: Stack) -> None:
    entity = {"name": "large", "data": {"text": "x" * 1_000_000}}

    made = stack.client.post("/apis/entities/v2/workspaces/default/entities/large", json=entity)

    assert made.is_success, made.text


def test_requests_that_come_together_are_answered_in_order(stack: Stack, connections: ExitStack) -> None:
    first, second = "/health/ready", f"{WORKSPACES}/default"
    both = connect(
        stack, connections,
        f"GET {first} HTTP/1.1", "Host: localhost", "",
        f"GET {second} HTTP/1.1", "Host: localhost", "Connection: close", "",
    )  # fmt: skip

    received = answer(both)[2]

    assert received.startswith(b'{"status":"ready"')
    assert b'"name":"default"' in received


def test_a_body_behind_its_header_belongs_to_its_request(stack: Stack, connections: ExitStack) -> None:
    body = json.dumps({"name": "in-two-parts"})
    connection = connect(
        stack, connections,
        f"POST {WORKSPACES} HTTP/1.1", "Host: localhost",
        "Content-Type: application/json", f"Content-Length: {len(body)}", "",
        rest=body[:5],
    )  # fmt: skip
    connection.sendall(f"{body[5:]}GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    status, _, rest = answer(connection)

    assert (status, b'"name":"in-two-parts"' in rest, rest.count(b"HTTP/1.1 200")) == (201, True, 1)


def test_clients_that_take_nothing_of_their_answer_keep_nobody_waiting(
    stack: Stack, connections: ExitStack
) -> None:
    entities = "/apis/entities/v2/workspaces/default/entities/unread"
    text = "x" * 4_000_000
    assert stack.client.post(entities, json={"name": "large", "data": {"text": text}}).is_success
    unread = [
        narrow(stack, connections, f"GET {entities}/large HTTP/1.1", "Host: localhost", "") for _ in range(24)
    ]
    for each in unread:
        assert each.recv(15) == b"HTTP/1.1 200 OK"

    for _ in range(3):
        assert stack.client.get(f"{WORKSPACES}/default").status_code == 200
    received = bytearray()
    while not received.endswith(b"}\n"):
        received += unread[0].recv(1_000_000)
    assert received.count(b"x") >= len(text)
    unread[0].sendall(f"GET {WORKSPACES}/default HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert unread[0].recv(15) == b"HTTP/1.1 200 OK"


def test_a_kept_connection_is_good_for_the_next_request(stack: Stack) -> None:
    with httpx.Client(base_url=stack.api_url, timeout=DEADLINE_S) as client:
        for number in range(3):
            assert client.put(f"{FILESETS}/data/-/kept", content=b"x" * number).json()["size"] == number
            assert client.get(f"{FILESETS}/data/-/kept").content == b"x" * number
            assert client.get(f"{WORKSPACES}/default").status_code == 200


def test_more_transfers_than_places_all_succeed(stack: Stack) -> None:
    def there_and_back(number: int) -> bool:
        path = f"{stack.api_url}{FILESETS}/data/-/many/{number}"
        content = bytes([number]) * 200_000
        stored = httpx.put(path, content=content, timeout=DEADLINE_S)
        return stored.is_success and httpx.get(path, timeout=DEADLINE_S).content == content

    with ThreadPoolExecutor(48) as clients:
        assert all(clients.map(there_and_back, range(96)))


def staged(stack: Stack) -> list[str]:
    """The uploads that are under way."""
    return [path.name for path in (stack.blob_root / "staging").rglob("*") if path.is_file()]


def test_a_stop_ends_downloads_soon(stack: Stack, connections: ExitStack, within: Within) -> None:
    stack.client.put(f"{FILESETS}/data/-/large", content=bytes(50_000_000))
    download = connect(stack, connections, f"GET {FILESETS}/data/-/large HTTP/1.1", "Host: localhost", "")
    received = len(download.recv(100_000))
    [web] = stack.running("web")
    began = time.monotonic()

    web.process.send_signal(signal.SIGTERM)
    web.process.wait(DEADLINE_S)

    within("the server stops beside a download", time.monotonic() - began, 4.0)
    with suppress(ConnectionResetError):
        while piece := download.recv(1_000_000):
            received += len(piece)
    assert 0 < received < 50_000_000
    web.kill()
    stack.start("web")


def test_a_stop_ends_uploads_soon_and_leaves_nothing_of_them(
    stack: Stack, connections: ExitStack, within: Within
) -> None:
    [web] = stack.running("web")
    body = connect(
        stack, connections,
        f"POST {WORKSPACES} HTTP/1.1", "Host: localhost",
        "Content-Type: application/json", "Content-Length: 900000", "",
        rest="{",
    )  # fmt: skip
    under_way = [upload(stack, connections, f"cut-{number}", length=10) for number in range(PLACES + 2)]
    stack.wait_until(lambda: len(staged(stack)) == PLACES - 1, "all places are taken")
    under_way.append(body)
    began = time.monotonic()

    web.process.send_signal(signal.SIGTERM)
    answers = [answer(each) for each in under_way]
    web.process.wait(DEADLINE_S)

    within("the server stops beside uploads", time.monotonic() - began, 4.0)
    assert {status for status, *_ in answers} == {503}
    assert all("Retry-After" in head and b"restarting" in body for _, head, body in answers)
    assert staged(stack) == []
    web.kill()
    stack.start("web")
