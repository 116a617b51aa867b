"""Connections whose server accepts what it is sent and never answers."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import db
from app.config import Settings
from tests.support.deadlines import DEADLINE_S
from tests.support.statements import counted

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


def ask_for_pid(session: Session) -> int:
    return session.scalars(PID).one()


def test_a_read_on_a_connection_that_was_cut_off_is_tried_on_another(impatient: Engine) -> None:
    sessions = db.sessions_of(impatient)
    first = db.read(sessions, ask_for_pid)

    with frozen(first):
        assert db.read(sessions, ask_for_pid) != first


def test_a_write_on_a_connection_that_was_cut_off_is_refused(impatient: Engine) -> None:
    sessions, asked = db.sessions_of(impatient), []
    first = db.read(sessions, ask_for_pid)

    with frozen(first), pytest.raises(OperationalError, match="did not answer within"):
        db.transact(sessions, lambda session: asked.append(None) or session.execute(text("SELECT 1")))
    assert len(asked) == 1


def end(pid: int, database: Engine) -> None:
    """Let the server end a connection, and wait until it has."""
    with database.connect() as connection:
        assert connection.scalar(select(func.pg_terminate_backend(pid, int(DEADLINE_S * 1000))))


@pytest.mark.parametrize("carry_out", [db.read, db.transact])
def test_a_pooled_connection_that_the_server_has_ended_is_replaced_unasked(
    impatient: Engine, database: Engine, carry_out: Callable[..., int]
) -> None:
    sessions = db.sessions_of(impatient)
    first = carry_out(sessions, ask_for_pid)
    end(first, database)

    with counted(impatient) as sent:
        assert carry_out(sessions, ask_for_pid) != first
    assert len(sent) == 1


def test_a_commit_whose_answer_is_lost_says_so(impatient: Engine, database: Engine) -> None:
    with pytest.raises(OperationalError) as failed:
        db.transact(db.sessions_of(impatient), lambda session: end(ask_for_pid(session), database))
    assert isinstance(failed.value.orig, db.OutcomeUnknown)


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
