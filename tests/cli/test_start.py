"""A command loads what it needs, and no more: a person waits for it, or a shell that completes with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OF_PROCESSES = {
    *("alembic", "celery", "flask", "kombu", "psycopg", "sqlalchemy", "structlog"),
    *("app.access", "app.api", "app.cleanup", "app.context", "app.db", "app.maintenance", "app.models"),
}
"""Loaded by what works on the database; it takes a second of the processor."""
OF_SETTINGS = {"app.config", "pydantic"}

TELLING = """
import atexit, runpy, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
runpy.run_module("app.cli", run_name="__main__")
"""


def loaded(*arguments: str, status: int = 0, **variables: str) -> set[str]:
    """The modules that a command has imported when it ends, with that status."""
    ended = subprocess.run(
        [sys.executable, "-c", TELLING, *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    return set(ended.stderr.split())


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_version_and_help_load_no_noun_and_no_settings(option: str) -> None:
    modules = loaded(option)

    assert "app.cli" in modules
    assert modules & {*OF_PROCESSES, *OF_SETTINGS, "app.cli.deletion"} == set()


def test_a_shell_that_completes_a_verb_loads_its_noun_and_no_settings() -> None:
    typed = {"COMP_WORDS": "workspaces deletion re", "COMP_CWORD": "2"}

    modules = loaded(_WORKSPACES_COMPLETE="bash_complete", **typed)

    assert "app.cli.deletion" in modules
    assert modules & {*OF_PROCESSES, *OF_SETTINGS, "app.cli.workspace"} == set()


@pytest.mark.parametrize(
    "command", ["deletion list", "deletion causes --as-of 2026-03-01T12:00:00Z", "cleanup status"]
)
def test_a_command_that_asks_a_server_loads_nothing_that_works_on_the_database(command: str) -> None:
    modules = loaded(*command.split(), "--server", "http://127.0.0.1:1", status=1)

    assert "app.cli.client.server" in modules
    assert modules & OF_PROCESSES == set()
