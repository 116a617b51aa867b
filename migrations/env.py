"""Run the migrations against the database that the settings name."""

from typing import Any

from alembic import context
from sqlalchemy import Engine, create_engine, event

import app.models  # registers the tables
from app.config import load_settings
from app.db import KEEPALIVE, Base
from app.postgres import require_version

assert app.models


def run() -> None:
    """Upgrade in one transaction; a caller may pass another `url` in the attributes."""
    url = context.config.attributes.get("url") or load_settings().direct_database_url
    engine = create_engine(url, connect_args={**KEEPALIVE, "prepare_threshold": None})

    @event.listens_for(engine, "connect", insert=True)
    def refuse_an_old_server(connection: Any, _record: Any) -> None:
        require_version(connection)

    migrate(engine)
    engine.dispose()


def migrate(engine: Engine) -> None:
    """Run all migrations, or none."""
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            # A migration may take longer than a statement of the product, whose limit the role may have.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            # Two releases started at once must not both migrate.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(727274)")
            context.run_migrations()


run()
