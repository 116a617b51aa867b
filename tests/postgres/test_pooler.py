"""PgBouncer in transaction mode: each transaction may get another connection, which keeps what others left on it."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import db
from app.config import Settings
from app.context import Context
from app.db import session_scope, unfitness
from app.postgres import set_limits
from app.storage.marker import KEY as MARKER
from tests.postgres.conftest import WORKSPACES, create_and_delete
from tests.support.database import migrate
from tests.support.deadlines import DEADLINE_S
from tests.support.debian import SERVER_CONNECTIONS, PgBouncer, needs_pgbouncer
from tests.support.stack import ALL, Stack

pytestmark = needs_pgbouncer
CALLERS, JOURNEYS = 8, 24
SETTINGS: dict[str, Any] = {
    "database_prepare_threshold": 0,
    # Callers outnumber connections: on a busy machine one waits for its turn.
    "statement_timeout_seconds": DEADLINE_S,
    "sweep_seconds": 1,
    "requeue_after_seconds": 1,
    "stop_grace_seconds": 1,
    # All that is older than ten minutes would go at once in the eyes of the breaker.
    "burst_deletions": 0,
}
OF_THE_POOLER = {
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "standard_conforming_strings",
    "application_name",
}
"""The settings that it gives back to each client itself."""
logging.getLogger("httpx").setLevel(logging.WARNING)


@pytest.fixture
def pooler(copy_url: str) -> Iterator[PgBouncer]:
    """A pooler before a database of this test alone."""
    server = PgBouncer(copy_url)
    try:
        server.start()
        yield server
    finally:
        server.discard()


LEFT = """
SELECT 'setting', name FROM pg_settings WHERE source = 'session' AND name <> ALL(%s)
UNION ALL SELECT 'lock', objid::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'statement', name FROM pg_prepared_statements
UNION ALL SELECT 'cursor', name FROM pg_cursors WHERE is_holdable
UNION ALL SELECT 'channel', channel FROM pg_listening_channels() AS channel
UNION ALL SELECT 'table', relname FROM pg_class WHERE relpersistence = 't' AND relnamespace = pg_my_temp_schema()
"""
"""What outlives a transaction, on the connection that is asked."""


def left_on_connections(url: str) -> list[tuple[str, str]]:
    """What transactions have left on the connections that a pooler shares, on all of them."""
    found, processes = [], set()
    with ExitStack() as opened:
        for _ in range(SERVER_CONNECTIONS):
            client = psycopg.connect(url.replace("+psycopg", "", 1), prepare_threshold=None)
            # It begins a transaction, which keeps its connection from the next client.
            found += opened.enter_context(client).execute(LEFT, [list(OF_THE_POOLER)]).fetchall()
            processes.update(client.execute("SELECT pg_backend_pid()").fetchall())
    assert len(processes) == SERVER_CONNECTIONS
    return found


@pytest.mark.long
def test_the_product_works_behind_it(tmp_path: Path) -> None:
    with Stack(tmp_path, parts=(), environment={"WEB_CONCURRENCY": "2"}, **SETTINGS) as stack:
        pooler = PgBouncer(stack.postgres.product_url)
        try:
            pooler.start()
            parts = [stack.start(name, wait=False, WORKSPACES_DATABASE_URL=pooler.url) for name in ALL]
            for part in parts:
                stack.wait_until_ready(part)

            with ThreadPoolExecutor(CALLERS) as callers:
                for _ in callers.map(lambda number: journey(stack, f"w-{number}"), range(JOURNEYS)):
                    pass

            assert [path.name for path in (stack.blob_root / "files").iterdir()] == [MARKER]
            assert len(pooler.clients()) > 3 * SERVER_CONNECTIONS
            assert left_on_connections(pooler.url) == []
        finally:
            pooler.discard()


def journey(stack: Stack, name: str) -> None:
    """Make a workspace with an entity, a file and a job, and delete it: every answer is a success."""

    def call(method: str, path: str, **given: Any) -> Any:
        answer = stack.client.request(method, path, timeout=DEADLINE_S, **given)
        assert answer.is_success, answer.text
        return answer.json()

    jobs, files = f"/apis/jobs/v2/workspaces/{name}/jobs", f"/apis/files/v2/workspaces/{name}/filesets"
    step = {"name": "main", "executor": {"provider": "subprocess", "command": ["sh", "-c", "echo served"]}}
    call("POST", WORKSPACES, json={"name": name})
    call("POST", f"{WORKSPACES}/{name}/entities/recipe", json={"name": "soup", "data": {"salt": 3}})
    call("PUT", f"{WORKSPACES}/{name}/entities/recipe/soup", json={"data": {"salt": 4}})
    assert call("GET", f"{WORKSPACES}/{name}/entities/recipe")["data"][0]["data"] == {"salt": 4}
    call("POST", files, json={"name": "weights"})
    call("PUT", f"{files}/weights/-/w.bin", content=b"weights")
    job = {"name": "train", "source": "tests", "spec": {}, "platform_spec": {"steps": [step]}}
    call("POST", jobs, json=job)
    stack.wait_until(
        lambda: call("GET", f"{jobs}/train/status")["status"] == "completed", f"the job of {name} ends"
    )
    assert name in {one["name"] for one in call("GET", f"{WORKSPACES}?page_size=1000")["data"]}
    deletion = call("DELETE", f"{WORKSPACES}/{name}")["deletion_id"]
    report = f"/apis/entities/v2/deletions/{deletion}"
    stack.wait_until(
        lambda: call("GET", report)["state"] == "DONE", f"{name} is gone", timeout_s=2 * DEADLINE_S
    )


def test_a_deletion_behind_it_ends_and_leaves_nothing_on_its_connections(
    pooler: PgBouncer, copy_url: str, product: Callable[..., Context]
) -> None:
    set_limits(Settings(database_url=copy_url, database_prepare_threshold=0))

    # Whoever needed a second connection while it has one could wait for others that do the same.
    create_and_delete(product(pooler.url, database_prepare_threshold=0, database_pool_size=1), "ml-team")

    assert left_on_connections(pooler.url) == []


def test_migrations_refuse_it(pooler: PgBouncer) -> None:
    with pytest.raises(OperationalError, match="WORKSPACES_MIGRATION_DATABASE_URL"):
        migrate(pooler.url)

    assert left_on_connections(pooler.url) == []


def test_the_limits_hold_behind_it(
    pooler: PgBouncer, copy_url: str, product: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "_ANSWER_MARGIN_S", DEADLINE_S)
    limit = {"database_prepare_threshold": 0, "statement_timeout_seconds": 0.5}
    set_limits(Settings(database_url=copy_url, **limit))
    pooler.reconnect()
    behind = product(pooler.url, **limit)

    with (
        pytest.raises(OperationalError, match="canceling statement due to statement timeout"),
        session_scope(behind.sessions) as session,
    ):
        session.execute(text("SELECT pg_sleep(600)"))
    with session_scope(behind.sessions) as session:
        assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "3s"
        assert session.scalar(text("SHOW TimeZone")) == "UTC"


def test_without_the_limits_of_the_role_it_is_refused_in_one_line(pooler: PgBouncer, copy_url: str) -> None:
    behind = Settings(database_url=pooler.url, migration_database_url=copy_url, database_prepare_threshold=0)
    refusal = unfitness(behind)

    assert refusal
    assert len(refusal.splitlines()) == 1
    assert "statement_timeout is 0 and not 5000" in refusal
    assert "workspaces db upgrade" in refusal

    set_limits(behind)
    assert "RECONNECT" in str(unfitness(behind)), "its old connections have no limits"
    pooler.reconnect()
    assert unfitness(behind) is None
