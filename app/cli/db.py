"""`workspaces db`: the schema."""

import click

from app import distribution
from app.cleanup.report.feed import place_restored_events
from app.cli.direct import in_one_line
from app.cli.outcome import echo
from app.config import load_settings
from app.db import Base, connect, session_scope, sessions_of
from app.logs import configure_logs
from app.maintenance.retention import record_retentions
from app.models import AuditRecord, Retention
from app.postgres import is_behind_pooler, provide_role, set_limits
from app.services.workspaces import seed
from app.version import VERSION


@click.group()
def db() -> None:
    """The database."""


@db.command()
@in_one_line()
def upgrade() -> None:
    """Bring the schema to this release, and make the built-in workspaces if they are missing.

    Where WORKSPACES_MIGRATION_DATABASE_URL has a role of its own, that of WORKSPACES_DATABASE_URL gets what it needs.
    Writes down how long records are kept: WORKSPACES_DELETION_RETENTION_DAYS and WORKSPACES_AUDIT_RETENTION_DAYS.
    """
    settings = load_settings()
    configure_logs(settings)
    distribution.upgrade_database()
    record_retentions(settings)
    tables = [table.name for table in Base.metadata.sorted_tables]
    provide_role(
        settings,
        tables,
        append_only=[AuditRecord.__tablename__],
        read_only=[Retention.__tablename__],
    )
    if is_behind_pooler(settings):
        set_limits(settings)
    sessions = sessions_of(connect(settings))
    with session_scope(sessions) as session:
        made = seed(session)
    place_restored_events(sessions)
    echo(f"the schema is that of {VERSION}; made: {', '.join(made) or 'nothing, none was missing'}")
