"""The statements that an engine sends."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, event


@dataclass(frozen=True)
class Sent:
    """A statement and the number of rows that it has returned or changed."""

    text: str
    rows: int


@contextmanager
def counted(engine: Engine) -> Iterator[list[Sent]]:
    """Collects every statement that the engine sends meanwhile."""
    sent: list[Sent] = []

    def note(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        sent.append(Sent(statement, cursor.rowcount))

    event.listen(engine, "after_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "after_cursor_execute", note)
