"""The engine, the declarative base and the unit of work."""

import json
import re
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import ReadOnlySqlTransaction, UniqueViolation, _WaitTimeout
from pydantic_core import from_json
from sqlalchemy import Engine, MetaData, create_engine, event
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from app.config import Settings
from app.postgres import UnfitServer, is_behind_pooler, limits, require_limits, require_version

Sessions = sessionmaker[Session]
T = TypeVar("T")
M = TypeVar("M", bound="Base")

KEEPALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
"""Connection arguments by which the kernel notices, in about ten seconds, that the network was cut."""

WRONG_SERVER = "the database of WORKSPACES_DATABASE_URL cannot be used"

_ANSWER_MARGIN_S = 2.0
"""How much later than its own time limit the server may say that it has cancelled a statement."""

_STRING_OR_LARGE_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?e\+\d+')

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


class ReadOnlyServer(psycopg.OperationalError):
    """The connection leads to a server that takes no writes, such as one that was the primary until a failover."""


class OutcomeUnknown(psycopg.OperationalError):
    """The connection was lost while the transaction was being committed."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed, with an OperationalError, when the server does not answer within `answer_s` seconds.

    The limits that the server keeps are of no use while it is frozen, and the kernel's while it acknowledges bytes.
    It is closed with ReadOnlyServer when the server takes no writes: the next one may lead to the primary.
    """

    answer_s: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Carry out one request. psycopg calls it for each statement, without a time-out."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.answer_s)
        except _WaitTimeout:
            # A late answer would be taken for that of the next statement.
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server did not answer within {self.answer_s:g} s") from None
        except ReadOnlySqlTransaction as error:
            self.pgconn.finish()
            raise ReadOnlyServer(str(error)) from None

    def commit(self) -> None:
        """Commit. Raises OutcomeUnknown if the connection is lost meanwhile."""
        try:
            super().commit()
        except psycopg.OperationalError as error:
            if self.closed:
                raise OutcomeUnknown(str(error)) from error
            raise

    def is_ended(self) -> bool:
        """Whether the server has ended the connection, as far as can be told without asking it."""
        # It has nothing to say to a connection that is idle but that it is over.
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))


def connect(settings: Settings) -> Engine:
    """An engine that replaces connections that the server has ended, and limits the duration of statements.

    A server that never answers is given up shortly after that limit: then statements raise OperationalError. So does
    the first one on a server that is too old or, behind a pooler, does not keep the limits of our role.
    """
    longest_s = max(settings.statement_timeout_seconds, settings.delete_lock_timeout_seconds)
    is_pooled = is_behind_pooler(settings)
    options = " ".join(f"-c {name}={value}" for name, value in limits(settings).items())
    engine = create_engine(
        settings.database_url,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=5,
        # The connection used last has the most plans and the warmest memory.
        pool_use_lifo=True,
        # In autocommit there is nothing to roll back.
        skip_autocommit_rollback=True,
        # Users' data must not reach the log through the text of an error.
        hide_parameters=True,
        json_serializer=_json,
        json_deserializer=from_json,
        connect_args={
            **KEEPALIVE,
            "connect_timeout": 3,
            "prepare_threshold": settings.database_prepare_threshold or None,
            **({} if is_pooled else {"options": options}),
        },
    )

    @event.listens_for(engine, "do_connect")
    def open_bounded(_dialect: Any, _record: Any, arguments: Any, options: Any) -> BoundedConnection:
        connection = BoundedConnection.connect(*arguments, **options)
        connection.answer_s = longest_s + _ANSWER_MARGIN_S
        try:
            require_version(connection)
            if is_pooled:
                require_limits(connection, settings)
        except psycopg.Error:
            connection.close()
            raise
        return connection

    @event.listens_for(engine, "checkout")
    def replace_ended(connection: BoundedConnection, _record: Any, _proxy: Any) -> None:
        if connection.is_ended():
            raise DisconnectionError

    return engine


def _json(value: Any) -> str:
    """JSON for `jsonb`, which keeps no exponents: 1e+22 would come back as an integer."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _STRING_OR_LARGE_FLOAT.sub(_with_fraction, text) if "e+" in text else text


def _with_fraction(found: re.Match[str]) -> str:
    token = found[0]
    return token if token.startswith('"') else f"{Decimal(token):f}.0"


def unfitness(settings: Settings) -> str | None:
    """Why the database server can never serve this process: one line. None if it can, or does not answer now."""
    engine = connect(settings)
    try:
        engine.connect().close()
    except OperationalError as error:
        return f"{WRONG_SERVER}: {error.orig}" if isinstance(error.orig, UnfitServer) else None
    finally:
        engine.dispose()
    return None


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
def read_scope(sessions: Sessions) -> Iterator[Session]:
    """A session whose statements only read: each is a transaction of its own, so that no lock lasts and nothing is sent
    but the statements.
    """
    with sessions() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        yield session


def read(sessions: Sessions, work: Callable[[Session], T]) -> T:
    """What `work` returns, in a `read_scope`; once more, on another connection, if the first one was lost."""
    try:
        with read_scope(sessions) as session:
            return work(session)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    with read_scope(sessions) as session:
        return work(session)


class Transact(Protocol):
    """Carries out some work in a transaction of its own, and commits it: `transact` on some connections."""

    def __call__(self, work: Callable[[Session], T], /) -> T:
        """What the work returns."""


def transact(sessions: Sessions, work: Callable[[Session], T]) -> T:
    """What `work` returns, in a `session_scope`; once more, on another connection, if the server was read-only.

    `work` may be called twice, so it must have no effects outside the transaction.
    """
    try:
        with session_scope(sessions) as session:
            return work(session)
    except OperationalError as error:
        if not isinstance(error.orig, ReadOnlyServer):
            raise
    with session_scope(sessions) as session:
        return work(session)


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


def insert_unique(session: Session, row: M, *, taken: Exception) -> M:
    """Insert `row`, an object of no session, immediately; the object of its row. Raises `taken` if it is not unique."""
    values = {name: value for name, value in vars(row).items() if not name.startswith("_")}
    # One round trip: no savepoint has to protect the transaction from an error.
    model = type(row)
    insertion = insert(model).values(**values).on_conflict_do_nothing().returning(model)
    inserted = session.scalars(insertion).one_or_none()
    if inserted is None:
        raise taken
    return inserted
