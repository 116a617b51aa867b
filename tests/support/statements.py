"""The statements that an engine sends."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, event

NESTED_LOOPS = [f"enable_{way}=off" for way in ("hashagg", "hashjoin", "mergejoin", "material", "sort")]
"""Settings under which PostgreSQL plans at the worst: a subquery may be run once for each row."""

_LOCKING_SUBQUERY = re.compile(r"\bIN \(SELECT (?:[^()]|\((?:[^()]|\([^()]*\))*\))*? FOR (?:NO KEY )?UPDATE")


def refuse_locking_subquery(statement: str) -> None:
    """Raise AssertionError for a statement that locks some rows in a subquery of `IN`, and so may lock any number."""
    if "FOR " in statement and _LOCKING_SUBQUERY.search(statement):
        raise AssertionError(
            "A subquery that locks rows may be run once per row, and each time finds others than those that the "
            f"statement has changed already. Make it a CTE, and compare with its columns: {statement}"
        )


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


@contextmanager
def noted(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Collects every statement that is sent meanwhile, with its parameters, to be explained."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def compact(engine: Engine, *tables: str) -> None:
    """Make tables and their indexes as large as what they hold, and let the planner know it.

    Rows that earlier tests have deleted are in an index until then: they are read, and make its use look dear.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in tables:
            connection.exec_driver_sql(f"VACUUM (FULL) {table}")
            # Only this notes which pages everybody sees, without which an index alone is never enough.
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {table}")


def rows_read(engine: Engine, act: Callable[[], Any]) -> Counter[str]:
    """The rows that the queries of `act` read of each table, those included that a filter removes."""
    with noted(engine) as sent:
        act()
    assert sent, "it has sent no statement"
    read: Counter[str] = Counter()
    with engine.connect() as connection:
        for statement, parameters in sent:
            explained = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
            ).scalar_one()
            for node in nodes(explained[0]["Plan"]):
                passed = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
                rows = sum(node.get(one, 0) for one in passed) * node["Actual Loops"]
                read[node.get("Relation Name", "")] += round(rows)
    del read[""]
    return read


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of a plan."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)
