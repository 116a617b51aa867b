"""The statements of a release: for each table, how its models insert, change and read a row.

`python -m tests.support.release_statements v0.1.0` writes those of that tag to the file that the tests read, so that
these need neither the tag nor its packages. Do so for each release.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Boolean, Column, DateTime, Enum, Integer, Table, Uuid

ROOT = Path(__file__).parents[2]


def recorded(tag: str) -> Path:
    """The file with the statements of that release."""
    return ROOT / "tests" / "postgres" / f"statements-of-{tag}.sql"


def statements_of(tag: str) -> str:
    """The statements of a tag of this repository, one a line. Raises CalledProcessError if there is no such tag."""
    code = subprocess.run(["git", "archive", tag, "app"], cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["tar", "-x", "-C", directory], input=code, check=True)
        command = [sys.executable, __file__]
        env = {**os.environ, "PYTHONPATH": directory}
        return subprocess.run(
            command, cwd=directory, env=env, check=True, capture_output=True, text=True
        ).stdout


def _print_statements() -> None:
    """Print those of the models that can be imported."""
    import app.models
    from app.db import Base

    assert app.models
    for table in Base.metadata.sorted_tables:
        sys.stdout.writelines(f"{statement}\n" for statement in _statements(table))


def _statements(table: Table) -> list[str]:
    written = [column for column in table.columns if column.identity is None]
    key = " AND ".join(f"{column.name} = {_value(column)}" for column in table.primary_key)
    values = {column.name: _value(column) for column in written}
    changes = ", ".join(f"{name} = {value}" for name, value in values.items())
    return [
        f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())});",
        f"UPDATE {table} SET {changes} WHERE {key};",
        f"SELECT {', '.join(column.name for column in table.columns)} FROM {table} WHERE {key};",
    ]


def _value(column: Column[Any]) -> str:
    match column.type:
        case Enum(enums=[first, *_]):
            return f"'{first}'"
        case Uuid():
            return "'00000000-0000-7000-8000-000000000007'"
        case DateTime():
            return "'2026-01-01T00:00:00Z'"
        case JSON():
            return "'[]'" if column.default and column.default.arg.__name__ == "list" else "'{}'"
        case Boolean():
            return "false"
        case Integer():
            return "7"
    return f"'{column.name}'"


if __name__ == "__main__":
    if sys.argv[1:]:
        recorded(sys.argv[1]).write_text(statements_of(sys.argv[1]))
    else:
        _print_statements()
