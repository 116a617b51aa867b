"""The command line tells in one line what an operator can mend."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.support.preloaded import run_preloaded

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_preloaded("python", "-m", "app.cli", *arguments, env={**os.environ, **variables}, cwd=ROOT)


@pytest.fixture
def empty_database(database_url: str) -> Iterator[str]:
    """A database that nobody has migrated."""
    server = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS unmigrated"))
        connection.execute(text("CREATE DATABASE unmigrated"))
        yield database_url.rpartition("/")[0] + "/unmigrated"
        connection.execute(text("DROP DATABASE unmigrated"))
    server.dispose()


@pytest.mark.parametrize(
    "command",
    [
        ("db", "upgrade"),
        ("cleanup", "run"),
        ("cleanup", "pause", "--direct"),
        ("workspace", "list", "--direct"),
        ("deletion", "wait", "0198c0de-0000-7000-8000-000000000000", "--direct"),
        ("store", "scan"),
        ("store", "adopt"),
        ("runtime", "purge", "gone", "--direct"),
    ],
)
def test_without_its_database_a_command_says_one_line(command: tuple[str, ...]) -> None:
    ended = run(*command, WORKSPACES_DATABASE_URL="postgresql+psycopg://app@127.0.0.1:1/x")

    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith("Error: the database of WORKSPACES_DATABASE_URL does not answer: ")
    assert "port 1 failed" in line


def test_a_database_without_our_schema_is_one_line_with_the_remedy(empty_database: str) -> None:
    ended = run("cleanup", "run", WORKSPACES_DATABASE_URL=empty_database)

    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "workspaces db upgrade" in line


@pytest.mark.parametrize("url", ["nosuch://bucket", "s3://key:word@bucket"])
def test_a_store_that_cannot_be_opened_is_one_line(url: str) -> None:
    ended = run("store", "scan", WORKSPACES_STORAGE_URL=url)

    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("Error: WORKSPACES_STORAGE_URL")
