"""PgBouncer in transaction mode: each transaction may get another connection, which keeps what others left on it."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import db
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Idle
from app.config import Settings
from app.context import Context
from app.db import session_scope, unfitness
from app.postgres import set_limits
from tests.postgres.clients import CALLERS, ROUNDS
from tests.support.deadlines import DEADLINE_S
from tests.support.debian import PgBouncer, needs_pgbouncer

pytestmark = needs_pgbouncer
ROOT = Path(__file__).parents[2]
PROCESSES = 3


@pytest.fixture
def pooler(copy_url: str) -> Iterator[PgBouncer]:
    """A pooler before a database of this test alone."""
    server = PgBouncer(copy_url)
    try:
        server.start()
        yield server
    finally:
        server.discard()


def start(*command: str, **settings: object) -> "subprocess.Popen[str]":
    variables = {f"WORKSPACES_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
def test_processes_behind_it_see_no_error(
    pooler: PgBouncer, copy_url: str, product: Callable[..., Context], tmp_path: Path
) -> None:
    given = {
        "database_url": pooler.url,
        "migration_database_url": copy_url,
        "database_prepare_threshold": 0,
        "data_dir": tmp_path,
    }
    upgrade = start("app.cli", "db", "upgrade", **given)
    _, errors = upgrade.communicate(timeout=DEADLINE_S)
    assert upgrade.returncode == 0, errors
    context = product(pooler.url, database_prepare_threshold=0)

    processes = [start("tests.postgres.clients", **given) for _ in range(PROCESSES)]
    answers = [process.communicate(timeout=DEADLINE_S * 2) for process in processes]
    counted = Counter[str]()
    for out, errors in answers:
        assert out, errors
        counted.update(json.loads(out.splitlines()[-1]))
    while not isinstance(run_slice(context, owner="tests"), Idle):
        pass

    assert set(counted) <= {"200", "201"}
    assert counted.total() == PROCESSES * CALLERS * ROUNDS * 5
    with session_scope(context.sessions) as session:
        left = text("SELECT count(*) FROM deletions WHERE state <> 'DONE'")
        assert session.scalar(left) == 0


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
