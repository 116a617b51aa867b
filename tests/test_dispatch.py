"""The publisher: the messages it sends, that no caller waits for it, and that none is sent inside a transaction."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from uuid import UUID

import pytest
import redis
from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler
from kombu.exceptions import OperationalError
from structlog.contextvars import bound_contextvars

from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.dispatch import (
    BackgroundPublisher,
    cleanup_message,
    job_message,
    notify_after_commit,
    publisher,
    send,
)
from devstack.processes import free_port
from tests.support.deadlines import DEADLINE_S
from tests.support.publisher import RecordingPublisher
from tests.support.serving import serving

DELETION = UUID("01a20aef-a8b0-7202-a731-b66b5e2bb8e2")


@pytest.fixture
def broker(monkeypatch) -> Iterator[redis.Redis]:
    """A Redis-protocol server in this process; the broker itself is not the subject here."""
    # Small packets would otherwise wait 40 ms each for the other side's acknowledgement.
    monkeypatch.setattr(TCPFakeRequestHandler, "disable_nagle_algorithm", True)
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    with serving(server), closing(redis.Redis(port=server.server_address[1])) as client:
        yield client


def publisher_at(port: int) -> BackgroundPublisher:
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


def test_a_message_carries_only_readable_facts(broker):
    publisher_at(broker.connection_pool.connection_kwargs["port"]).publish(
        cleanup_message(DELETION, "ml-team", "filesets", attempt=3)
    )

    headers = queued(broker, "cleanup")["headers"]
    assert headers["task"] == "workspace.cleanup.filesets"
    assert headers["argsrepr"] == f"workspace=ml-team attempt=3 phase=filesets deletion_id={DELETION}"
    assert headers["kwargsrepr"] == (
        f"{{'workspace': 'ml-team', 'attempt': 3, 'phase': 'filesets', 'deletion_id': '{DELETION}'}}"
    )


def test_a_message_carries_the_request_that_it_goes_back_to(broker):
    with bound_contextvars(request_id="r-1"):
        message = cleanup_message(DELETION, "ml-team", "filesets")
    publisher_at(broker.connection_pool.connection_kwargs["port"]).publish(message)

    assert queued(broker, "cleanup")["headers"]["request_id"] == "r-1"


def test_the_line_about_a_message_that_was_lost_names_the_request(caplog):
    with bound_contextvars(request_id="r-1"):
        message = cleanup_message(DELETION, "ml-team", "filesets")
    publishing = publisher_at(free_port())
    publishing.publish(message)

    publishing.flush(within_s=DEADLINE_S)

    [line] = [record.msg for record in caplog.records if "message.lost" in str(record.msg)]
    assert line["request_id"] == "r-1"


def test_a_message_about_another_thing_than_the_work_that_sends_it_goes_back_to_no_request_of_it():
    with bound_contextvars(request_id="r-1", deletion_id=str(DELETION), workspace="ml-team"):
        assert cleanup_message(DELETION, "ml-team", "filesets").request_id == "r-1"
        assert job_message(DELETION, DELETION, "train").request_id == "r-1"  # the cascade stops it
        assert cleanup_message(UUID(int=9), "ml-team", "filesets").request_id is None
    assert cleanup_message(DELETION, "ml-team", "filesets").request_id is None


def test_a_process_that_is_about_to_end_waits_until_its_messages_are_sent(broker):
    publishing = publisher_at(broker.connection_pool.connection_kwargs["port"])
    for _ in range(20):
        publishing.publish(cleanup_message(DELETION, "ml-team", None))

    publishing.flush(within_s=DEADLINE_S)

    assert publishing._buffer.unfinished_tasks == 0
    # One that a slow machine does not take in time is lost, as `publish` says.
    assert broker.llen("workspaces:cleanup") > 10


def test_it_does_not_wait_for_a_broker_that_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        publishing = publisher_at(silent.getsockname()[1])
        publishing.publish(cleanup_message(DELETION, "ml-team", None))

        publishing.flush(within_s=0.01)

        assert publishing._buffer.unfinished_tasks == 1
        publishing.flush(within_s=DEADLINE_S)  # it is given up


def test_the_end_of_a_deletion_has_a_task_of_its_own(broker):
    port = broker.connection_pool.connection_kwargs["port"]
    publisher_at(port).publish(cleanup_message(DELETION, "ml-team", None))

    assert queued(broker, "cleanup")["headers"]["task"] == "workspace.cleanup.finalize"


def test_no_caller_waits_while_the_broker_hangs():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        publisher = publisher_at(deaf.getsockname()[1])

        for _ in range(20):
            publisher.publish(cleanup_message(DELETION, "ml-team", "jobs"))
        connection, _ = deaf.accept()

        # All twenty were taken while the first had not even been answered.
        connection.close()


def test_a_publish_that_is_not_answered_is_not_repeated():
    """By default kombu connects three times, with pauses of 2 and 4 s between."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        settings = Settings(
            broker_url=f"redis://127.0.0.1:{deaf.getsockname()[1]}/0", publish_timeout_seconds=0.1
        )

        with pytest.raises(OperationalError, match="Timeout"):
            send(publisher(settings), cleanup_message(DELETION, "ml-team", "jobs"))

        deaf.settimeout(0)
        connections = []
        with suppress(BlockingIOError):
            while True:
                connections.append(deaf.accept()[0])
        assert len(connections) == 1
        connections[0].close()


def test_a_lost_message_is_logged_and_the_next_one_arrives(broker, capsys):
    port = broker.connection_pool.connection_kwargs["port"]
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead_port = gone.getsockname()[1]
    publisher = publisher_at(dead_port)

    publisher.publish(cleanup_message(DELETION, "ml-team", "jobs"))
    publisher_at(port).publish(cleanup_message(DELETION, "ml-team", "jobs"))

    assert queued(broker, "cleanup")["headers"]["task"] == "workspace.cleanup.jobs"


def test_a_message_is_published_after_the_commit(context: Context, publisher: RecordingPublisher) -> None:
    message = cleanup_message(DELETION, "ml-team", "jobs")

    with session_scope(context.sessions) as session:
        notify_after_commit(session, publisher, message)
        assert publisher.published == []

    assert publisher.published == [message]


def test_a_message_of_a_transaction_that_rolls_back_is_never_published(
    context: Context, publisher: RecordingPublisher
) -> None:
    with suppress(ZeroDivisionError), session_scope(context.sessions) as session:
        notify_after_commit(session, publisher, cleanup_message(DELETION, "ml-team", "jobs"))
        raise ZeroDivisionError

    assert publisher.published == []


def test_the_recording_publisher_of_all_tests_refuses_a_message_inside_a_transaction(
    context: Context,
) -> None:
    publisher = RecordingPublisher()
    message = cleanup_message(DELETION, "ml-team", "jobs")

    with session_scope(context.sessions):
        with pytest.raises(AssertionError, match="notify_after_commit"):
            publisher.publish(message)
        with pytest.raises(AssertionError), session_scope(context.sessions) as inner:
            notify_after_commit(inner, publisher, message)  # The outer transaction is still open.
    publisher.publish(message)

    assert publisher.too_early == [message, message]
    assert publisher.published == [message]


def test_the_queue_of_jobs_is_known_to_be_empty_or_not_whatever_the_priority(broker: redis.Redis) -> None:
    ours = publisher_at(broker.connection_pool.connection_kwargs["port"])
    assert ours.is_empty("runtime")

    ours.publish(job_message(DELETION, DELETION, "train"))
    deadline = time.monotonic() + DEADLINE_S
    while not (keys := broker.keys("workspaces:runtime*")):
        assert time.monotonic() < deadline

    assert not ours.is_empty("runtime")
    assert ours.lengths() == {"cleanup": 0, "runtime": 1, "maintenance": 0, "notify": 0}
    assert broker.lpop(keys[0])
    assert ours.is_empty("runtime")


def test_of_a_broker_that_is_away_nothing_is_known_to_be_empty() -> None:
    publisher = publisher_at(free_port())

    assert not publisher.is_empty("runtime")
    with pytest.raises(OperationalError):
        publisher.lengths()


def test_a_worker_that_dies_while_it_looks_for_lost_messages_does_not_keep_others_from_it_for_long(
    broker: redis.Redis,
) -> None:
    url = f"redis://127.0.0.1:{broker.connection_pool.connection_kwargs['port']}/0"

    with publisher(Settings(broker_url=url)).connection_for_read() as connection:
        assert connection.default_channel.unacked_mutex_expire <= 15
