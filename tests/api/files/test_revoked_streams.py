"""A download under way ends when its workspace goes, or its reader loses the right to it."""

import socket
import threading
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from app.context import Context
from app.http.transfers import streaming
from app.lifecycle import JobStatus
from app.models import Job, Workspace
from app.server import minimum_rate
from app.server.minimum_rate import MinimumRateSocket
from app.storage.reading import Reading
from tests.factories import make_fileset, make_job, make_workspace
from tests.support.deadlines import DEADLINE_S
from tests.support.locks import meanwhile

SIZE = 3_000_000
WORKSPACE = "/apis/entities/v2/workspaces/ml-team"
FILE = "/apis/files/v2/workspaces/ml-team/filesets/data/-/f"
RESULT = "/apis/jobs/v2/workspaces/ml-team/jobs/train/results/model/download"
ARCHIVE = "/apis/jobs/v2/workspaces/ml-team/jobs/train/results/logs/download"


@pytest.fixture(autouse=True)
def workspace(session: Session, context: Context, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with a file and two results, one of them a directory; each piece of a download is looked at."""
    monkeypatch.setattr(streaming, "_LOOK_S", 0)
    workspace = make_workspace(session, "ml-team")
    make_fileset(session, workspace, store=context.store, files={"f": bytes(SIZE)})
    job = make_job(session, workspace, "train", JobStatus.COMPLETED)
    files = {"results/model": bytes(SIZE), "results/logs/a": bytes(SIZE), "results/logs/b": b""}
    fileset = make_fileset(session, workspace, job.fileset, store=context.store, files=files)
    results = [
        {"name": name, "artifact_url": f"ml-team/{fileset.name}#results/{name}"} for name in ("model", "logs")
    ]
    session.execute(update(Job).where(Job.id == job.id).values(results=results))
    session.commit()
    return workspace


def begin(client: FlaskClient, path: str) -> tuple[Iterator[bytes], int]:
    response = client.get(path)
    assert response.status_code == 200, response.text
    chunks = iter(response.response)
    return chunks, len(next(chunks))


def test_a_download_that_may_go_on_is_whole(client: FlaskClient) -> None:
    chunks, received = begin(client, FILE)

    assert received + sum(len(chunk) for chunk in chunks) == SIZE


@pytest.mark.parametrize("path", [FILE, RESULT])
def test_it_ends_when_the_workspace_is_deleted(client: FlaskClient, path: str) -> None:
    chunks, received = begin(client, path)

    assert client.delete(WORKSPACE).status_code == 200

    with pytest.raises(ConnectionResetError):
        next(chunks)
    assert received <= 64 * 1024


def test_it_goes_on_while_the_database_is_away(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks, received = begin(client, FILE)

    def fail(*_: object) -> None:
        raise OperationalError("SELECT 1", None, Exception("gone"))

    monkeypatch.setattr(Session, "scalar", fail)

    assert received + sum(len(chunk) for chunk in chunks) == SIZE


@pytest.mark.parametrize("path", [FILE, RESULT, ARCHIVE])
def test_a_download_that_nobody_reads_closes_its_file(
    client: FlaskClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    close = Reading.close
    monkeypatch.setattr(Reading, "close", lambda file: (closed.append(file), close(file)))

    client.get(path).close()

    assert closed


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[MinimumRateSocket, socket.socket]]:
    """A connection of the server, and its client's end. Only its waits look whether the download may go on."""
    monkeypatch.setattr(streaming, "_LOOK_S", DEADLINE_S)
    monkeypatch.setattr(minimum_rate, "_WAIT_S", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        limited = MinimumRateSocket(ours)
        limited.setblocking(True)
        yield limited, theirs


def send(response: TestResponse, connection: MinimumRateSocket) -> None:
    for piece in response.response:
        connection.sendall(piece)


def test_it_ends_also_if_its_client_takes_nothing(
    client: FlaskClient, ends: tuple[MinimumRateSocket, socket.socket]
) -> None:
    response = client.get(FILE, environ_overrides={"gunicorn.socket": ends[0]})
    assert client.delete(WORKSPACE).status_code == 200

    with pytest.raises(ConnectionResetError):
        send(response, ends[0])


def test_a_client_that_takes_nothing_for_a_while_may_go_on(
    client: FlaskClient, ends: tuple[MinimumRateSocket, socket.socket]
) -> None:
    limited, theirs = ends
    response = client.get(FILE, environ_overrides={"gunicorn.socket": limited})
    waited = threading.Event()
    look, limited.while_waiting = limited.while_waiting, lambda: (look(), waited.set())

    def read() -> int:
        assert waited.wait(DEADLINE_S)
        return sum(len(piece) for piece in iter(lambda: theirs.recv(SIZE), b""))

    with meanwhile(read) as reading:
        send(response, limited)
        limited.shutdown(socket.SHUT_WR)
    assert reading.result() == SIZE
