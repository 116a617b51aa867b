"""The SQL of the product, recorded in this process and executed again through psycopg alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import Engine, event

from app.errors import Busy
from bench import NotMeasured

_ENDS = UUID(int=0), UUID(int=2**128 - 1)
"""The first and the last of all ids stand for themselves, not for a row."""


@dataclass(frozen=True)
class Statement:
    """One statement as it was sent, and how many rows it had."""

    sql: str
    values: Any
    rows: int
    is_alone: bool
    """Whether it was sent in autocommit."""


@dataclass
class Recording:
    """What one operation has sent: statements, and None for each commit."""

    steps: list[Statement | None] = field(default_factory=list)

    def repeat(self, connection: "psycopg.Connection[Any]") -> None:
        """Send the same once more, and roll it back. Raises NotMeasured if a statement has other rows than before."""
        for step in self.steps:
            if step is None:
                connection.rollback()
            else:
                _send(connection, step, step.values)

    def repeat_for_another(self, connection: "psycopg.Connection[Any]", others: Mapping[UUID, UUID]) -> None:
        """Send and commit the same with the ids of `others` in place of the recorded ones, and new ones for all others.

        Raises NotMeasured if a statement has other rows than before.
        """
        ids = {**others, **{end: end for end in _ENDS}}
        for step in self.steps:
            if step is None:
                connection.commit()
            else:
                _send(connection, step, _other(step.values, ids))


def _send(connection: "psycopg.Connection[Any]", step: Statement, values: Any) -> None:
    if connection.autocommit != step.is_alone:
        connection.autocommit = step.is_alone
    cursor = connection.execute(step.sql, values)
    if cursor.description:
        cursor.fetchall()
    if cursor.rowcount != step.rows:
        raise NotMeasured(
            f"sent again, it had {cursor.rowcount} rows instead of {step.rows}: {step.sql[:200]}"
        )


def _other(value: Any, ids: dict[UUID, UUID]) -> Any:
    match value:
        case dict():
            return {key: _other(one, ids) for key, one in value.items()}
        case list() | tuple():
            return type(value)(_other(one, ids) for one in value)
        case UUID():
            return ids.setdefault(value, uuid4())
    return value


@contextmanager
def recorded(engine: Engine, *, undo: bool = False) -> Iterator[Recording]:
    """Record what is sent through an engine in the block.

    With `undo` each commit raises Busy instead, so that the same can be sent again.
    """
    recording = Recording()

    def note(_connection: Any, cursor: Any, sql: str, values: Any, *_: Any) -> None:
        recording.steps.append(Statement(sql, values, cursor.rowcount, cursor.connection.autocommit))

    def note_commit(_connection: Any) -> None:
        recording.steps.append(None)
        if undo:
            raise Busy("undone by the bench")

    event.listen(engine, "after_cursor_execute", note)
    event.listen(engine, "commit", note_commit)
    try:
        yield recording
    finally:
        event.remove(engine, "after_cursor_execute", note)
        event.remove(engine, "commit", note_commit)
    if not any(recording.steps):
        raise NotMeasured("the operation has sent no statement through SQLAlchemy")
