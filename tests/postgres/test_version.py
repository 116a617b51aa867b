"""The oldest PostgreSQL that is supported carries the product; an older one is refused in one line."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.context import Context
from app.db import session_scope
from app.postgres import OLDEST
from app.services.workspaces import seed
from tests.postgres.conftest import create_and_delete
from tests.support.database import migrate
from tests.support.deadlines import DEADLINE_S
from tests.support.debian import OldestPostgres, needs_oldest_postgres
from tests.support.old_postgres import old_postgres
from tests.support.preloaded import run_preloaded
from tests.support.store import record_store

ROOT = Path(__file__).parents[2]


@needs_oldest_postgres
def test_the_oldest_postgres_carries_the_migrations_and_a_deletion(product: Callable[..., Context]) -> None:
    server = OldestPostgres()
    try:
        server.start(timeout_s=DEADLINE_S)
        migrate(server.url)
        context = product(server.url)
        with session_scope(context.sessions) as session:
            assert session.connection().dialect.server_version_info[0] == OLDEST
            seed(session)
            record_store(session)

        create_and_delete(context, "oldest")
    finally:
        server.discard()


@pytest.mark.parametrize(
    ("command", "status"),
    [(("db", "upgrade"), 1), (("cleanup", "run"), 1), (("serve", "web"), 2), (("serve", "worker"), 2)],
    ids=["upgrade", "cleanup", "web", "worker"],
)
def test_an_older_postgres_is_refused_in_one_line(command: tuple[str, ...], status: int) -> None:
    with old_postgres() as url:
        variables = {**os.environ, "WORKSPACES_DATABASE_URL": url, "PORT": "0"}
        ended = run_preloaded("python", "-m", "app.cli", *command, env=variables, cwd=ROOT)

    assert ended.returncode == status
    [line] = (line for line in ended.stderr.splitlines() if "[INFO]" not in line)
    assert line.endswith("it is PostgreSQL 14.9, and PostgreSQL 15 is the oldest that works: upgrade it")
