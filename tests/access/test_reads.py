"""What a GET sends, or another request that only reads: statements that only read, one round trip each."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, event

from app.access.permissions import OPEN
from app.context import Context
from tests.access.test_matrix import ROUTES, ROWS, SERVICE, ask
from tests.access.world import World

_WRITES_OR_LOCKS = re.compile(
    r"\b(INSERT|UPDATE|DELETE|SHARE|LOCK|pg_(try_)?advisory\w+|set_config|nextval)\b", re.I
)

READS = [name for name, route in ROUTES.items() if route.action == "read" and route.permission not in OPEN]

OF_SETTINGS = {"GET /apis/jobs/v2/execution-profiles"}
"""Reads of what every caller may know and no row says: nothing is asked of the database."""


@pytest.mark.parametrize("name", READS)
def test_a_get_holds_no_lock_and_writes_nothing(
    client: FlaskClient, world: World, context: Context, name: str
) -> None:
    world.publish_file(context.store)
    engine: Engine = context.sessions.kw["bind"]
    sent: list[tuple[str, bool]] = []

    def note(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        sent.append((statement, cursor.connection.autocommit))

    event.listen(engine, "after_cursor_execute", note)
    try:
        answer = ask(client, ROUTES[name], ROWS[name], world, SERVICE)
        assert answer.status_code == ROUTES[name].status, answer.text
        assert answer.data is not None
    finally:
        event.remove(engine, "after_cursor_execute", note)

    for statement, is_alone in sent:
        assert statement.startswith(("SELECT", "WITH")), statement
        assert not _WRITES_OR_LOCKS.search(statement), statement
        assert is_alone, f"in a transaction: {statement}"
    assert sent or name in OF_SETTINGS
