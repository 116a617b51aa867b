"""What the product asks of a PostgreSQL server: its version, the rights of our role, and its limits behind a pooler."""

from collections.abc import Iterable
from getpass import getuser
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from sqlalchemy import create_engine, func, make_url, select
from sqlalchemy.pool import NullPool

from app.config import Settings

OLDEST = 15
"""The oldest major version of PostgreSQL that has what the schema uses, such as NULLS NOT DISTINCT."""


class UnfitServer(psycopg.OperationalError):
    """The server answers, but it cannot serve us: its text says why, and what helps."""


def limits(settings: Settings) -> dict[str, str]:
    """The parameters of each connection by which the server bounds what a process can do to others; in milliseconds."""
    timeout_ms = int(settings.statement_timeout_seconds * 1000)
    return {
        "TimeZone": "UTC",
        "statement_timeout": str(timeout_ms),
        # A paused or disconnected worker must not keep its locks: the server ends idle transactions.
        "idle_in_transaction_session_timeout": str(timeout_ms * 6),
    }


def is_behind_pooler(settings: Settings) -> bool:
    """Whether connections may be shared by transactions of others, so that nothing may be set on one of them."""
    return settings.database_prepare_threshold == 0


def require_version(connection: "psycopg.Connection[Any]") -> None:
    """Raise UnfitServer if the server of an open connection is older than what the schema needs."""
    version = connection.info.server_version
    if version < OLDEST * 10_000:
        found = f"{version // 10_000}.{version % 10_000}"
        raise UnfitServer(
            f"it is PostgreSQL {found}, and PostgreSQL {OLDEST} is the oldest that works: upgrade it"
        )


def require_direct(connection: "psycopg.Connection[Any]") -> None:
    """Raise UnfitServer if an open connection leads through a pooler. Begins and ends a transaction."""
    # A pooler cannot tell its client which process of the server the next transaction will get.
    ((pid,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
    connection.rollback()
    if pid != connection.info.backend_pid:
        raise UnfitServer(
            "migrations lock and set what lasts as long as a connection, and this one leads through a pooler: "
            "give the URL of the database itself as WORKSPACES_MIGRATION_DATABASE_URL"
        )


def require_limits(connection: "psycopg.Connection[Any]", settings: Settings) -> None:
    """Raise UnfitServer unless an open connection has all `limits`. Begins and ends a transaction."""
    expected = limits(settings)
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
    found = dict(connection.execute(query, [list(expected)]).fetchall())
    connection.rollback()
    if wrong := [
        f"{name} is {found.get(name)} and not {value}"
        for name, value in expected.items()
        if found.get(name) != value
    ]:
        raise UnfitServer(
            f"without prepared statements the limits belong to the role, but {', '.join(wrong)}: "
            "run `workspaces db upgrade`, then RECONNECT in PgBouncer"
        )


def set_limits(settings: Settings) -> None:
    """Give the role of the database URL the `limits` in that database, for connections to come. Commits.

    Raises InsufficientPrivilege (in a ProgrammingError) if migrations have a role of their own that may not do so.
    """
    role = _role_of(settings.database_url)
    with create_engine(settings.direct_database_url, poolclass=NullPool).begin() as direct:
        connection = direct.connection.driver_connection
        for name, value in limits(settings).items():
            change = sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(
                sql.Identifier(role),
                sql.Identifier(str(direct.scalar(select(func.current_database())))),
                sql.Identifier(name),
                sql.Literal(value),
            )
            direct.exec_driver_sql(change.as_string(connection))


def provide_role(
    settings: Settings, tables: Iterable[str], *, append_only: Iterable[str], read_only: Iterable[str]
) -> None:
    """Let the role of the database URL work with the rows of `tables`, if migrations have another role. Commits.

    It is made if it is missing. Of the `append_only` tables it may read rows and add some, no more, and of the
    `read_only` ones not even that; and because the other role owns all of them, it can neither alter a table nor
    disable its triggers.
    Raises InsufficientPrivilege (in a ProgrammingError) if the other role may not make roles.
    """
    url = make_url(settings.database_url)
    role = _role_of(settings.database_url)
    if role == _role_of(settings.direct_database_url):
        return
    with create_engine(settings.direct_database_url, poolclass=NullPool).begin() as direct:
        connection: psycopg.Connection[Any] = direct.connection.driver_connection  # type: ignore[assignment]
        schema = str(direct.scalar(select(func.current_schema())))
        known = {"role": sql.Identifier(role), "schema": sql.Identifier(schema)}

        def execute(statement: LiteralString, **names: sql.Composable) -> None:
            connection.execute(sql.SQL(statement).format(**known, **names))

        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
            # Hashed here: a statement may be written to the server's log.
            verifier = None
            if url.password:
                hashed = connection.pgconn.encrypt_password(
                    str(url.password).encode(), role.encode(), b"scram-sha-256"
                )
                verifier = hashed.decode()
            execute("CREATE ROLE {role} LOGIN PASSWORD {verifier}", verifier=sql.Literal(verifier))
        execute("GRANT USAGE ON SCHEMA {schema} TO {role}")
        execute("GRANT SELECT ON {schema}.alembic_version TO {role}")
        for table in tables:
            execute(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.{table} TO {role}",
                table=sql.Identifier(table),
            )
        for table in append_only:
            execute("REVOKE UPDATE, DELETE ON {schema}.{table} FROM {role}", table=sql.Identifier(table))
        for table in read_only:
            execute(
                "REVOKE INSERT, UPDATE, DELETE ON {schema}.{table} FROM {role}", table=sql.Identifier(table)
            )


def _role_of(url: str) -> str:
    return make_url(url).username or getuser()
