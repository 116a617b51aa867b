"""Engine, declarative base, and the unit of work."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from psycopg.errors import UniqueViolation
from sqlalchemy import Engine, MetaData, create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from app.config import Settings

Sessions = sessionmaker[Session]

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """All tables. Constraint names are fixed, because errors are told apart by them."""

    metadata = MetaData(naming_convention=_NAMING)


def connect(settings: Settings) -> Engine:
    """An engine whose connections are checked before use and whose statements cannot hang for ever."""
    timeout_ms = int(settings.statement_timeout_seconds * 1000)
    return create_engine(
        settings.database_url,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        # What users write must not reach the log by way of an error's text.
        hide_parameters=True,
        json_serializer=lambda value: json.dumps(value, ensure_ascii=False, allow_nan=False),
        connect_args={
            "connect_timeout": 3,
            # A worker that was paused or cut off must not keep its locks: the server ends such transactions.
            "options": f"-c timezone=UTC -c statement_timeout={timeout_ms}"
            f" -c idle_in_transaction_session_timeout={timeout_ms * 6}",
        },
    )


def sessions_of(engine: Engine) -> Sessions:
    """The factory that `session_scope` and every door draw their sessions from."""
    return sessionmaker(engine, expire_on_commit=False)


def after_commit(session: Session, action: Callable[[], Any]) -> None:
    """Run `action` once the surrounding `session_scope` has committed; never if it rolls back."""
    session.info.setdefault("after_commit", []).append(action)


@contextmanager
def session_scope(sessions: Sessions) -> Iterator[Session]:
    """One transaction: commits when the block ends, rolls back when it raises, then runs the `after_commit` hooks.

    SQLAlchemy's own event of that name also fires on savepoints, hence ours.
    """
    with sessions() as session:
        with session.begin():
            yield session
        for action in session.info.pop("after_commit", ()):
            action()


@contextmanager
def unique_or(session: Session, taken: Exception) -> Iterator[None]:
    """Write what the block changes now, and raise `taken` if a unique index refuses it.

    A savepoint, so that the surrounding transaction stays usable.
    """
    try:
        with session.begin_nested():
            yield
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise taken from None
        raise


def insert_unique(session: Session, row: Base, *, taken: Exception) -> None:
    """Insert `row` now. Raises `taken` if a unique index refuses it."""
    with unique_or(session, taken):
        session.add(row)
