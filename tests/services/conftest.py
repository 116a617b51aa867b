"""A database that a few rows keep as busy as a million would."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from app.context import Context
from app.db import connect, sessions_of

ROW_S, STATEMENT_S = 0.02, 0.5
"""How long one row takes, and a statement may: ten rows, but not fifty."""


@pytest.fixture
def hasty(context: Context) -> Iterator[Context]:
    """A process whose statements end soon."""
    engine = connect(context.settings.model_copy(update={"statement_timeout_seconds": STATEMENT_S}))
    yield replace(context, sessions=sessions_of(engine))
    engine.dispose()


@pytest.fixture
def slow_rows(database: Engine) -> Iterator[None]:
    """Each change of an entity takes as long as that of hundreds."""
    with database.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN PERFORM pg_sleep({ROW_S}); RETURN coalesce(new, old); END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER slow BEFORE UPDATE OR DELETE ON entities FOR EACH ROW EXECUTE FUNCTION take_time()"
        )
    yield
    with database.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION take_time CASCADE")
