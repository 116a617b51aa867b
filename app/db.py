"""The engine, the declarative base and the unit of work."""

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
    """Base of all tables. Constraint names are fixed, so that migrations can refer to them."""

    metadata = MetaData(naming_convention=_NAMING)


def connect(settings: Settings) -> Engine:
    """An engine that checks its connections before use and limits the duration of statements."""
    timeout_ms = int(settings.statement_timeout_seconds * 1000)
    return create_engine(
        settings.database_url,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        # Users' data must not reach the log through the text of an error.
        hide_parameters=True,
        json_serializer=lambda value: json.dumps(value, ensure_ascii=False, allow_nan=False),
        connect_args={
            "connect_timeout": 3,
            # A paused or disconnected worker must not keep its locks: the server ends idle transactions.
            "options": f"-c timezone=UTC -c statement_timeout={timeout_ms}"
            f" -c idle_in_transaction_session_timeout={timeout_ms * 6}",
        },
    )


def sessions_of(engine: Engine) -> Sessions:
    """The session factory of one engine, for `session_scope`."""
    return sessionmaker(engine, expire_on_commit=False)


def after_commit(session: Session, action: Callable[[], Any]) -> None:
    """Run `action` once the surrounding `session_scope` has committed; never if it rolls back."""
    session.info.setdefault("after_commit", []).append(action)


@contextmanager
def session_scope(sessions: Sessions) -> Iterator[Session]:
    """One transaction: commits at the end of the block, rolls back if it raises; runs `after_commit` actions last.

    SQLAlchemy's own `after_commit` event is not used, because it also fires for savepoints.
    """
    with sessions() as session:
        with session.begin():
            yield session
        for action in session.info.pop("after_commit", ()):
            action()


@contextmanager
def unique_or(session: Session, taken: Exception) -> Iterator[None]:
    """Flush the changes of the block, and raise `taken` if they violate a unique index.

    A savepoint keeps the surrounding transaction usable.
    """
    try:
        with session.begin_nested():
            yield
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise taken from None
        raise


def insert_unique(session: Session, row: Base, *, taken: Exception) -> None:
    """Insert `row` immediately. Raises `taken` if it violates a unique index."""
    with unique_or(session, taken):
        session.add(row)
