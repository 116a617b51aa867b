"""A database that refuses to change a few rows at once, as if they were a million."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from app.context import Context
from app.db import connect, sessions_of

MOST_ROWS = 30
"""More than the chunks of these tests have, and less than all that they delete."""


@pytest.fixture
def hasty(context: Context) -> Iterator[Context]:
    """A process whose statements do not wait long for a lock."""
    engine = connect(context.settings.model_copy(update={"statement_timeout_seconds": 2}))
    yield replace(context, sessions=sessions_of(engine))
    engine.dispose()


@pytest.fixture
def few_at_once(database: Engine) -> Iterator[None]:
    """A statement that changes more than `MOST_ROWS` entities meets the time limit."""
    with database.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse_many() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF (SELECT count(*) FROM changed) > {MOST_ROWS} THEN "
            "RAISE EXCEPTION USING ERRCODE = 'query_canceled'; END IF; RETURN NULL; END $$"
        )
        for act, rows in (("UPDATE", "NEW"), ("DELETE", "OLD")):
            connection.exec_driver_sql(
                f"CREATE TRIGGER few_{act} AFTER {act} ON entities REFERENCING {rows} TABLE AS changed "
                "FOR EACH STATEMENT EXECUTE FUNCTION refuse_many()"
            )
    yield
    with database.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION refuse_many CASCADE")
