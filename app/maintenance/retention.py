"""How long records are kept: the record of ended deletions, the audit log, and the record of notifications.

The first two end by functions of the owner of the tables, since the role of the processes may not remove them; see
migration 0044. Whole days count, so that no sweep removes a single line and adds one that says so.
"""

from sqlalchemy import create_engine, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from app.clock import seconds_from_now
from app.config import Settings
from app.logs import get_logger
from app.models import AuditRecord, Deletion, Delivery, Retention

log = get_logger(__name__)


def record_retentions(settings: Settings) -> None:
    """Write down, as the owner of the tables, how long the settings say that records are kept. Commits."""
    days = {
        Deletion.__tablename__: settings.deletion_retention_days,
        AuditRecord.__tablename__: settings.audit_retention_days,
    }
    recorded = insert(Retention).values([{"records": name, "days": kept} for name, kept in days.items()])
    recorded = recorded.on_conflict_do_update(
        index_elements=["records"], set_={"days": recorded.excluded.days}
    )
    with create_engine(settings.direct_database_url, poolclass=NullPool).begin() as owner:
        owner.execute(recorded)


def prune_records(session: Session, *, at_most: int) -> None:
    """Remove up to so many rows of each table of which the retention that is on record says that they are too old.

    Each function that removes something writes a line of the audit log. Any number of processes may do so at once:
    the others find nothing to do.
    """
    deletions, lines = session.execute(
        select(func.prune_deletions(at_most), func.prune_audit_log(at_most))
    ).one()
    if deletions or lines:
        log.info("records.pruned", deletions=deletions, audit_records=lines)


def prune_deliveries(session: Session, settings: Settings) -> None:
    """Remove up to a chunk of records of notifications that are too old, whatever became of them. Does not commit."""
    if not settings.notification_retention_days:
        return
    old = (
        select(Delivery.id)
        .where(Delivery.created_at < seconds_from_now(-86400 * settings.notification_retention_days))
        .order_by(Delivery.created_at, Delivery.id)
        .limit(settings.chunk_size)
        .with_for_update(skip_locked=True)  # two sweeps share the work instead of waiting for each other
        .cte("old")  # a subquery might be run once per row, and find others each time
    )
    session.execute(
        delete(Delivery).where(Delivery.id == old.c.id), execution_options={"synchronize_session": False}
    )
