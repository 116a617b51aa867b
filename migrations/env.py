"""Run the migrations against the database that the settings name."""

from alembic import context
from sqlalchemy import create_engine

import app.models  # registers the tables
from app.config import load_settings
from app.db import KEEPALIVE, Base

assert app.models


def run() -> None:
    """Upgrade in one transaction; a caller that holds a connection passes it in the attributes."""
    url = context.config.attributes.get("url") or load_settings().database_url
    engine = create_engine(url, connect_args=KEEPALIVE)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            # Two releases started at once must not both migrate.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(727274)")
            context.run_migrations()
    engine.dispose()


run()
