"""Run the migrations against the database that the settings name."""

import time
from typing import Any

from alembic import context
from psycopg.errors import LockNotAvailable
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import OperationalError

import app.models  # registers the tables
from app.config import load_settings
from app.db import KEEPALIVE, Base
from app.logs import get_logger
from app.postgres import require_version

assert app.models

log = get_logger(__name__)

LOCK_TIMEOUT_S = 1
"""How long a migration waits for a lock: for as long, others wait behind it."""
PAUSE_S = 2.0
"""How long they have the table for themselves before the next attempt."""
ATTEMPTS = 60


def run() -> None:
    """Upgrade in one transaction, which yields to longer ones and is tried again.

    A caller may pass another `url`, and another number of `attempts`, in the attributes.
    """
    given: dict[str, Any] = context.config.attributes
    url, attempts = given.get("url") or load_settings().direct_database_url, given.get("attempts", ATTEMPTS)
    engine = create_engine(url, connect_args={**KEEPALIVE, "prepare_threshold": None})

    @event.listens_for(engine, "connect", insert=True)
    def refuse_an_old_server(connection: Any, _record: Any) -> None:
        require_version(connection)

    for attempt in range(1, attempts + 1):
        try:
            migrate(engine)
            break
        except OperationalError as error:
            if attempt == attempts or not isinstance(error.orig, LockNotAvailable):
                raise
            log.warning("migration.waits", attempt=attempt, reason="another transaction holds a lock")
            time.sleep(PAUSE_S)
        finally:
            engine.dispose()


def migrate(engine: Engine) -> None:
    """Run all migrations, or none."""
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            # A migration may take longer than a statement of the product, whose limit the role may have.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            # Two releases started at once must not both migrate. Nobody waits behind this lock.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(727274)")
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
            context.run_migrations()


run()
