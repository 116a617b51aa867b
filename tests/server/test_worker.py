"""Slow clients of a real gunicorn, over real sockets, and threads that all wait."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import count
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import create_engine, text

from app.server import minimum_rate
from app.server.liveness import asks_if_live
from app.server.minimum_rate import MinimumRateSocket
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Within
from tests.support.stack import Stack

FILESETS = "/apis/files/v2/workspaces/default/filesets"
THREADS, TRANSFERS = 8, 6  # of the Procfile; a quarter is kept free
TIME_BUDGET_S = 1.0
HUNG_UP = b"hung up"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The web server alone, with a short time budget for clients and a long one for the database."""
    directory = tmp_path_factory.mktemp("stack")
    plug_in = directory / "plug-in"
    plug_in.mkdir()
    (plug_in / "sitecustomize.py").write_text(
        f"from app.server import minimum_rate, reception\nfrom app.http import validation\n"
        f"minimum_rate._TIME_BUDGET_S, minimum_rate._BYTES_PER_S = {TIME_BUDGET_S}, 1e6\n"
        f"reception._HEAD_S = reception._BODY_S = validation._BODY_S = {TIME_BUDGET_S}\n"
        "from app.http.transfers import streaming\nstreaming._LOOK_S = 0\n"
    )
    with Stack(
        directory / "product", parts=("web",), plug_ins=[plug_in], statement_timeout_seconds=DEADLINE_S
    ) as stack:
        assert stack.client.post(FILESETS, json={"name": "data"}).status_code == 200
        assert stack.client.put(f"{FILESETS}/data/-/large", content=bytes(50_000_000)).status_code == 200
        yield stack


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    with ExitStack() as connections:
        yield connections


def connect(stack: Stack, connections: ExitStack, *sent: str) -> socket.socket:
    """A connection over which these lines were sent, and nothing else."""
    address = urlsplit(stack.api_url)
    connection = socket.create_connection((address.hostname, address.port), timeout=30)
    connections.enter_context(connection)
    connection.sendall("\r\n".join([*sent, ""]).encode())
    return connection


def download(stack: Stack, connections: ExitStack) -> socket.socket:
    """A download of which the client reads only the start."""
    connection = connect(stack, connections, f"GET {FILESETS}/data/-/large HTTP/1.1", "Host: localhost", "")
    assert connection.recv(15) == b"HTTP/1.1 200 OK"
    return connection


def test_a_download_is_cut_when_its_workspace_is_deleted(stack: Stack, connections: ExitStack) -> None:
    """What the kernel had not sent yet is discarded: a slow client would be served from there for minutes."""
    workspace = stack.client.post("/apis/entities/v2/workspaces", json={"name": "doomed"})
    assert workspace.status_code == 201, workspace.text
    filesets = FILESETS.replace("default", "doomed")
    assert stack.client.post(filesets, json={"name": "data"}).is_success
    assert stack.client.put(f"{filesets}/data/-/large", content=bytes(50_000_000)).is_success
    connection = connect(stack, connections, f"GET {filesets}/data/-/large HTTP/1.1", "Host: localhost", "")
    received = len(connection.recv(100_000))

    assert stack.client.delete("/apis/entities/v2/workspaces/doomed").is_success

    with suppress(ConnectionResetError):
        while more := connection.recv(1_000_000):
            received += len(more)
    assert 0 < received < 50_000_000


def test_a_large_list_is_cut_when_its_workspace_is_deleted(stack: Stack, connections: ExitStack) -> None:
    """Never completed: its client would take the part that it has for all there is."""
    assert stack.client.post("/apis/entities/v2/workspaces", json={"name": "emptied"}).status_code == 201
    engine = create_engine(stack.database_url)
    with engine.begin() as database:
        database.execute(
            text(
                "INSERT INTO entities (id, workspace_id, entity_type, name, data, db_version, created_by, updated_by, "
                "created_at, updated_at) SELECT gen_random_uuid(), id, 'large', 'e-' || number, "
                "jsonb_build_object('text', repeat('x', 1000000)), 1, '', '', now(), now() "
                "FROM workspaces, generate_series(1, 40) AS number WHERE name = 'emptied'"
            )
        )
    engine.dispose()
    path = "/apis/entities/v2/workspaces/emptied/entities/large?page_size=1000"
    connection = connect(stack, connections, f"GET {path} HTTP/1.1", "Host: localhost", "")
    received = connection.recv(100_000)
    assert received.startswith(b"HTTP/1.1 200 OK")

    assert stack.client.delete("/apis/entities/v2/workspaces/emptied").is_success

    with suppress(ConnectionResetError):
        while more := connection.recv(1_000_000):
            received += more
    assert len(received) < 40_000_000
    assert b'"pagination"' not in received
    assert not received.endswith(b"0\r\n\r\n")


def test_a_download_that_its_client_does_not_read_is_aborted(stack: Stack, connections: ExitStack) -> None:
    """The next transfer waits for that."""
    for _ in range(TRANSFERS):
        download(stack, connections)

    assert stack.client.head(f"{FILESETS}/data/-/large", timeout=DEADLINE_S).is_success


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (["GET / HTTP/1.1"], HUNG_UP),
        (
            [
                f"POST {FILESETS} HTTP/1.1",
                "Host: localhost",
                "Content-Type: application/json",
                "Content-Length: 99",
                "",
                "{",
            ],
            b"HTTP/1.1 408",
        ),
        (
            [f"PUT {FILESETS}/data/-/slow HTTP/1.1", "Host: localhost", "Content-Length: 100", "", "x"],
            b"HTTP/1.1 408",
        ),
    ],
    ids=["headers", "JSON", "file"],
)
def test_a_client_that_sends_slowly_keeps_no_thread(
    stack: Stack, connections: ExitStack, request_: list[str], answer: bytes
) -> None:
    connection = connect(stack, connections, *request_)
    connection.settimeout(TIME_BUDGET_S / 5)
    received = b""
    deadline = time.monotonic() + DEADLINE_S

    while not received:  # Never idle long enough for the idle timeout alone.
        assert time.monotonic() < deadline
        try:
            connection.sendall(b" ")
            received = connection.recv(12) or HUNG_UP
        except TimeoutError:
            continue
        except OSError:
            received = HUNG_UP

    assert received == answer


def test_a_client_that_does_not_close_keeps_no_other_waiting(
    stack: Stack, connections: ExitStack, within: Within
) -> None:
    """gunicorn waits 2 s for each, in the thread that accepts connections."""
    kept, began = THREADS * 2, time.monotonic()
    for _ in range(kept):
        answered = connect(
            stack, connections, "GET /health/ready HTTP/1.1", "Host: localhost", "Connection: close", ""
        )
        assert answered.recv(15) == b"HTTP/1.1 200 OK"

    fresh = connect(stack, connections, "GET /health/ready HTTP/1.1", "Host: localhost", "")
    assert fresh.recv(15) == b"HTTP/1.1 200 OK"

    took_s = time.monotonic() - began
    within(f"{kept + 1} answers to clients that do not hang up", took_s, kept)
    assert took_s < kept, "half of what they would wait"


def test_the_process_says_that_it_lives_while_all_its_threads_wait(stack: Stack, within: Within) -> None:
    engine = create_engine(stack.database_url, isolation_level="AUTOCOMMIT")
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE pg_blocking_pids(pid) <> '{}'")
    with ThreadPoolExecutor(THREADS) as clients, engine.connect() as lock, engine.connect() as observer:
        lock.execute(text("BEGIN; LOCK TABLE workspaces IN ACCESS EXCLUSIVE MODE"))
        url = f"{stack.api_url}/apis/entities/v2/workspaces"
        asked = [clients.submit(httpx.get, url, timeout=DEADLINE_S) for _ in range(THREADS)]
        stack.wait_until(lambda: observer.scalar(waiting) == THREADS, "all threads wait")

        began = time.monotonic()
        answer = httpx.get(f"{stack.api_url}/health/live", timeout=DEADLINE_S / 5)

        within("/health/live while all threads wait", time.monotonic() - began, 1.0)
        assert answer.json() == {"status": "live"}
        assert answer.headers["Cache-Control"] == "no-store"
        assert observer.scalar(waiting) == THREADS
        lock.execute(text("ROLLBACK"))
        assert {each.result().status_code for each in asked} == {200}
    engine.dispose()


def test_a_client_that_has_sent_nothing_keeps_no_thread(stack: Stack, connections: ExitStack) -> None:
    for _ in range(THREADS * 2):
        address = urlsplit(stack.api_url)
        connections.enter_context(socket.create_connection((address.hostname, address.port)))

    late = connect(stack, connections, "GET /health/ready HTTP/1.1", "Host: localhost")
    late.sendall(b"\r\n")
    assert late.recv(15) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("received", "is_asked"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n", True),
        (b"GET /health/live HTTP/1.0\r\n\r\n", True),
        (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n", False),
        (b"GET /health/live HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", False),
        (b"GET /health/live HTTP/1.1\r\n\r\nGET /health/live HTTP/1.1\r\n\r\n", False),
        (b"GET /health/ready HTTP/1.1\r\n\r\n", False),
        (b"", False),
    ],
    ids=["whole", "HTTP 1.0", "cut off", "with a body", "two at once", "another path", "nothing"],
)
def test_only_a_whole_request_is_answered_without_a_thread(received: bytes, is_asked: bool) -> None:
    assert asks_if_live(received) is is_asked


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[MinimumRateSocket, socket.socket]]:
    monkeypatch.setattr(minimum_rate, "_TIME_BUDGET_S", 0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        limited = MinimumRateSocket(ours)
        limited.setblocking(True)
        limited.has_place = True
        yield limited, theirs


def test_bytes_extend_the_time_budget_and_the_next_request_renews_it(
    ends: tuple[MinimumRateSocket, socket.socket],
) -> None:
    limited, theirs = ends
    limited._budget_s = -1
    theirs.sendall(b"x" * minimum_rate._BYTES_PER_S * 2)
    assert limited.recv(minimum_rate._BYTES_PER_S * 2)

    limited._budget_s = -1
    theirs.sendall(b"x")
    with pytest.raises(TimeoutError):
        limited.recv(1)

    limited.setblocking(True)
    theirs.sendall(b"x")
    assert limited.recv(1) == b"x"


def test_what_is_not_taken_in_time_is_not_sent_for_ever(
    ends: tuple[MinimumRateSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minimum_rate, "_BYTES_PER_S", 1e9)
    limited, _ = ends

    with pytest.raises(TimeoutError):
        limited.sendall(bytes(10_000_000))


def passing(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """From now on every operation seems to take this many seconds."""
    clock = count(0, seconds)
    monkeypatch.setattr(minimum_rate, "monotonic", lambda: next(clock))


@pytest.mark.parametrize("allowed_s", [None, 60])
def test_a_wait_that_an_upload_is_allowed_is_not_cut_short(
    ends: tuple[MinimumRateSocket, socket.socket], monkeypatch: pytest.MonkeyPatch, allowed_s: float | None
) -> None:
    limited, theirs = ends
    if allowed_s:
        limited.settimeout(allowed_s)
    passing(monkeypatch, 33)
    theirs.sendall(b"xyz")

    if not allowed_s:
        with pytest.raises(TimeoutError):
            limited.recv(1)
        return
    assert limited.recv(1) == b"x"
    with pytest.raises(TimeoutError):  # In all, not each time.
        limited.recv(1)


def test_a_client_that_reads_slowly_uses_up_one_budget_for_the_whole_response(
    ends: tuple[MinimumRateSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited, _ = ends
    monkeypatch.setattr(minimum_rate, "_MIN_RESPONSE_S", 0.05)
    monkeypatch.setattr(minimum_rate, "_TIME_BUDGET_S", 30.0)
    monkeypatch.setattr(minimum_rate, "_BYTES_PER_S", 1e9)
    limited.setblocking(True)
    passing(monkeypatch, 20)
    for _ in range(2):
        limited.sendall(b"x")

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        limited.sendall(bytes(10_000_000))
    assert time.monotonic() - began < 20
