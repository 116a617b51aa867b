"""Connections whose server accepts what it is sent and never answers."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from app import db
from app.config import Settings
from tests.support.deadlines import DEADLINE_S

PID = text("SELECT pg_backend_pid()")


def bounded(settings: Settings) -> Engine:
    limits = {"statement_timeout_seconds": 0.5, "delete_lock_timeout_seconds": 0.5}
    return db.connect(settings.model_copy(update=limits))


@pytest.fixture
def impatient(database: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The product's engine, which waits for a second."""
    monkeypatch.setattr(db, "_ANSWER_MARGIN_S", 0.5)
    engine = bounded(settings)
    yield engine
    engine.dispose()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Let the server's process of one connection hang; a client that waits for it for too long finds it alive."""
    rescue = Timer(DEADLINE_S, os.kill, (pid, signal.SIGCONT))
    os.kill(pid, signal.SIGSTOP)
    rescue.start()
    try:
        yield
    finally:
        rescue.cancel()
        os.kill(pid, signal.SIGCONT)


def test_a_statement_that_is_never_answered_fails(impatient: Engine) -> None:
    with impatient.connect() as connection:
        given_up = pytest.raises(OperationalError, match="the server did not answer within 1 s")
        with frozen(connection.scalar(PID)), given_up as failed:
            connection.execute(text("SELECT 1"))
        assert failed.value.connection_invalidated


def test_a_pooled_connection_that_was_cut_off_is_replaced(impatient: Engine) -> None:
    with impatient.connect() as connection:
        first = connection.scalar(PID)

    with frozen(first), impatient.connect() as connection:
        assert connection.scalar(PID) != first


def test_the_server_is_the_first_to_end_a_statement_that_takes_too_long(
    database: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "_ANSWER_MARGIN_S", DEADLINE_S)
    engine = bounded(settings)
    with engine.connect() as connection:
        with pytest.raises(OperationalError, match="canceling statement due to statement timeout"):
            connection.execute(text("SELECT pg_sleep(600)"))
        connection.rollback()
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_the_kernel_watches_every_connection(impatient: Engine) -> None:
    with impatient.connect() as connection:
        given = connection.connection.driver_connection.info.get_parameters()
    assert {name: int(given[name]) for name in db.KEEPALIVE} == db.KEEPALIVE
