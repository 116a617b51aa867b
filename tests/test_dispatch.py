"""The bell: what it sends, and that nobody waits for it."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from uuid import UUID

import pytest
import redis
from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler

from app.config import Settings
from app.dispatch import BackgroundPublisher, cleanup_message
from tests.support.deadlines import DEADLINE_S

DELETION = UUID("01a20aef-a8b0-7202-a731-b66b5e2bb8e2")


@pytest.fixture
def broker(monkeypatch) -> Iterator[redis.Redis]:
    """A Redis-protocol server in this process; the broker itself is not the subject here."""
    # Small packets would otherwise wait 40 ms each for the other side's acknowledgement.
    monkeypatch.setattr(TCPFakeRequestHandler, "disable_nagle_algorithm", True)
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    client = redis.Redis(port=server.server_address[1])
    yield client
    client.close()
    server.shutdown()
    server.server_close()
    thread.join()


def dispatcher_at(port: int) -> BackgroundPublisher:
    return BackgroundPublisher(
        Settings(broker_url=f"redis://127.0.0.1:{port}/0", publish_timeout_seconds=0.3)
    )


def queued(broker: redis.Redis, queue: str) -> dict:
    """The first message of a queue, once it is there."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if raw := broker.lindex(f"workspaces:{queue}", 0):
            return json.loads(raw)
    raise AssertionError(f"nothing arrived in queue {queue}")


def test_a_ring_carries_only_readable_facts(broker):
    dispatcher_at(broker.connection_pool.connection_kwargs["port"]).publish(
        cleanup_message(DELETION, "ml-team", "filesets", attempt=3)
    )

    headers = queued(broker, "cleanup")["headers"]
    assert headers["task"] == "workspace.cleanup.filesets"
    assert headers["argsrepr"] == f"workspace=ml-team attempt=3 phase=filesets deletion_id={DELETION}"
    assert headers["kwargsrepr"] == (
        f"{{'workspace': 'ml-team', 'attempt': 3, 'phase': 'filesets', 'deletion_id': '{DELETION}'}}"
    )


def test_the_end_of_a_deletion_has_a_task_of_its_own(broker):
    port = broker.connection_pool.connection_kwargs["port"]
    dispatcher_at(port).publish(cleanup_message(DELETION, "ml-team", None))

    assert queued(broker, "cleanup")["headers"]["task"] == "workspace.cleanup.finalize"


def test_a_ring_is_not_waited_for_while_the_broker_hangs():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        dispatcher = dispatcher_at(deaf.getsockname()[1])

        for _ in range(20):
            dispatcher.publish(cleanup_message(DELETION, "ml-team", "jobs"))
        connection, _ = deaf.accept()

        # All twenty were taken while the first had not even been answered.
        connection.close()


def test_a_lost_ring_is_logged_and_the_next_one_arrives(broker, capsys):
    port = broker.connection_pool.connection_kwargs["port"]
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead_port = gone.getsockname()[1]
    dispatcher = dispatcher_at(dead_port)

    dispatcher.publish(cleanup_message(DELETION, "ml-team", "jobs"))
    dispatcher_at(port).publish(cleanup_message(DELETION, "ml-team", "jobs"))

    assert queued(broker, "cleanup")["headers"]["task"] == "workspace.cleanup.jobs"
