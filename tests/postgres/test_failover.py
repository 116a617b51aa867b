"""Another server becomes the primary: processes go on without a restart."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from flask.testing import FlaskClient
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Finished, Idle
from app.context import Context
from app.db import session_scope, sessions_of
from app.services.workspaces import seed
from devstack.servers import EmbeddedPostgres, database_answers
from tests.postgres.conftest import WORKSPACES
from tests.support.application import answering_from
from tests.support.database import migrate
from tests.support.deadlines import DEADLINE_S
from tests.support.store import record_store

DEMOTE = text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")


def let_connection_be_read_only(context: Context) -> None:
    """The only connection in the pool leads to a server that is no primary any more."""
    context.sessions.kw["bind"].dispose()
    with session_scope(context.sessions) as session:
        session.execute(DEMOTE)


def test_a_request_on_a_read_only_connection_is_tried_on_another(
    client: FlaskClient, context: Context
) -> None:
    let_connection_be_read_only(context)

    assert client.post(WORKSPACES, json={"name": "written"}).status_code == 201
    assert client.delete(f"{WORKSPACES}/written").status_code == 200


def test_a_slice_on_a_read_only_connection_ends_as_when_the_database_is_away(
    client: FlaskClient, context: Context
) -> None:
    client.post(WORKSPACES, json={"name": "doomed"})
    client.delete(f"{WORKSPACES}/doomed")
    let_connection_be_read_only(context)

    with pytest.raises(OperationalError):
        run_slice(context, owner="tests")
    assert isinstance(run_slice(context, owner="tests"), Finished)
    assert isinstance(run_slice(context, owner="tests"), Idle)


def test_of_several_hosts_the_one_that_takes_writes_is_used(
    tmp_path: Path, product: Callable[..., Context]
) -> None:
    first = EmbeddedPostgres(tmp_path / "first", durable=False)
    shutil.copytree(first.data_dir / "passwords", tmp_path / "second" / "passwords")
    second = EmbeddedPostgres(tmp_path / "second", durable=False)
    try:
        first.start(timeout_s=DEADLINE_S)
        prepare(first.url)
        first.stop()
        subprocess.run(["cp", "-a", str(first.home.cluster), str(second.home.cluster)], check=True)
        let_be_standby(second)
        for server in (first, second):
            server.start(timeout_s=DEADLINE_S)
        hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in (second, first))
        login = f"app:{make_url(first.url).password}"
        url = f"postgresql+psycopg://{login}@/postgres?{hosts}&target_session_attrs=read-write"
        assert database_answers(url)
        client = answering_from(product(url)).test_client()
        assert client.post(WORKSPACES, json={"name": "before"}).status_code == 201

        first.stop()
        let_be_standby(first)
        first.start(timeout_s=DEADLINE_S)
        execute(second, "SELECT pg_promote()")

        assert client.post(WORKSPACES, json={"name": "after"}).status_code == 201
        assert execute(second, "SELECT name FROM workspaces WHERE name IN ('before', 'after')") == [
            ("after",)
        ]
    finally:
        for server in (first, second):
            server.discard()


def prepare(url: str) -> None:
    """Make the schema, and what every installation has."""
    migrate(url)
    engine = create_engine(url)
    with session_scope(sessions_of(engine)) as session:
        seed(session)
        record_store(session)
    engine.dispose()


def let_be_standby(server: EmbeddedPostgres) -> None:
    """Start the server in recovery next time."""
    signal = server.home.cluster / "standby.signal"
    signal.touch()
    signal.chmod(0o644)


def execute(server: EmbeddedPostgres, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as connection:
        return connection.execute(statement).fetchall()
