"""Run the migrations against the database that the settings name."""

import time
from typing import Any

from alembic import context
from alembic.operations import MigrateOperation, Operations
from psycopg.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

import app.models  # registers the tables
from app.config import load_settings
from app.db import KEEPALIVE, Base
from app.logs import get_logger
from app.postgres import require_direct, require_version

assert app.models

log = get_logger(__name__)

LOCK_TIMEOUT_S = 1
"""How long a migration waits for a lock: for as long, others wait behind it."""
PAUSE_S = 2.0
"""How long they have the table for themselves before the next attempt."""
ATTEMPTS = 60

_TURN = 727274
"""The key of the advisory lock of who migrates. Earlier releases lock it, too."""


@Operations.register_operation("build_index")
class BuildIndex(MigrateOperation):
    """`op.build_index(…)`: build an index while others write; one that an earlier attempt has left INVALID goes first.

    The transaction of the migrations before it is committed: one that builds indexes does nothing else. Other keywords
    are those of `op.create_index`.
    """

    def __init__(
        self, name: str, table: str, columns: list[Any], where: str | None = None, **options: Any
    ) -> None:
        self.name, self.table, self.columns, self.where = name, table, columns, where
        self.options = options

    @classmethod
    def build_index(cls, operations: Operations, *args: Any, **kwargs: Any) -> None:
        """What a migration calls."""
        operations.invoke(cls(*args, **kwargs))


@Operations.implementation_for(BuildIndex)
def build_index(operations: Operations, index: BuildIndex) -> None:
    """Build the index, unless it is there."""
    with operations.get_context().autocommit_block():
        # It waits for every transaction that is older, and nobody waits behind it.
        operations.execute("SET lock_timeout = 0")
        is_valid = operations.get_bind().scalar(
            text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"),
            {"name": index.name},
        )
        if is_valid is False:
            operations.execute(f"DROP INDEX CONCURRENTLY {index.name}")
        operations.create_index(
            index.name,
            index.table,
            index.columns,
            postgresql_where=text(index.where) if index.where else None,
            postgresql_concurrently=True,
            if_not_exists=True,
            **index.options,
        )
        operations.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")


@Operations.register_operation("count_resources")
class CountResources(MigrateOperation):
    """`op.count_resources(table)`: keep how many rows of the table there are in each workspace.

    A table that has rows already needs a count of them in a later migration, as 0031 does.
    """

    def __init__(self, table: str) -> None:
        self.table = table

    @classmethod
    def count_resources(cls, operations: Operations, table: str) -> None:
        """What a migration calls."""
        operations.invoke(cls(table))


@Operations.implementation_for(CountResources)
def count_resources(operations: Operations, counting: CountResources) -> None:
    """Add the triggers; they go with the table."""
    for name, change, rows in (("count_added", "INSERT", "NEW"), ("count_removed", "DELETE", "OLD")):
        operations.execute(
            f"CREATE TRIGGER {name} AFTER {change} ON {counting.table} "
            f"REFERENCING {rows} TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_resources()"
        )


def run() -> None:
    """Upgrade in one transaction, which yields to longer ones and is tried again; each `build_index` ends one.

    A caller may pass another `url`, and another number of `attempts`, in the attributes.
    """
    given: dict[str, Any] = context.config.attributes
    url, attempts = given.get("url") or load_settings().direct_database_url, given.get("attempts", ATTEMPTS)
    engine = create_engine(url, connect_args={**KEEPALIVE, "prepare_threshold": None})

    @event.listens_for(engine, "connect", insert=True)
    def refuse_an_unfit_server(connection: Any, _record: Any) -> None:
        require_version(connection)
        require_direct(connection)

    for attempt in range(1, attempts + 1):
        try:
            migrate(engine)
            break
        except OperationalError as error:
            if attempt == attempts or not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
                raise
            log.warning("migration.waits", attempt=attempt, reason="another transaction holds a lock")
            time.sleep(PAUSE_S)
        finally:
            engine.dispose()


def migrate(engine: Engine) -> None:
    """Run all migrations, or none of those since the last `build_index`."""
    with engine.connect() as connection:
        _take_turn(connection)
        if newer := _unknown_revisions(connection):
            # A release that was rolled back: it runs on this schema, which carries its statements.
            log.warning("migration.schema_is_newer", revision=newer, reason="left as it is")
            return
        # A migration may take longer than a statement of the product, whose limit the role may have.
        connection.exec_driver_sql("SET statement_timeout = 0")
        connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
        connection.commit()
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()


def _unknown_revisions(connection: Connection) -> str:
    """The revisions of the schema that this release does not have, separated by commas."""
    if not connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL")):
        return ""
    known = {script.revision for script in context.script.walk_revisions()}
    return ", ".join(set(connection.scalars(text("SELECT version_num FROM alembic_version"))) - known)


def _take_turn(connection: Connection) -> None:
    """Wait until nobody else migrates: two releases may be started at once. The lock lasts as long as the connection.

    Asked for again and again: a statement that waits would be waited for by an index that is being built.
    """
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:turn)"), {"turn": _TURN}):
        connection.rollback()
        time.sleep(PAUSE_S / 10)


run()
