"""Count what becomes of deletions, in the transactions that make it so"""

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

# Of the owner, as the functions that count resources: a process of the release before may write before its role may.
COUNT = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO deletion_counters AS kept (backend, counted, kind, label, value)
    SELECT pg_backend_pid(), change.* FROM ({changes}) AS change (counted, kind, label, value)
    ON CONFLICT (backend, counted, kind, label) DO UPDATE SET value = kept.value + excluded.value;
    RETURN NULL;
END $$
"""

ENDED = """
SELECT 'ended', '', lower(NEW.state), 1::float8 WHERE NEW.state IN ('DONE', 'FAILED', 'RESTORED')
UNION ALL
SELECT column1, '', column2, column3
FROM (SELECT greatest(extract(epoch FROM NEW.finished_at - NEW.purge_after), 0)::float8 AS took) AS done,
    LATERAL (VALUES
        ('duration_sum', '', took),
        ('duration', coalesce((SELECT min(bound) FROM unnest(ARRAY[1, 5, 15, 60, 300, 1800, 7200, 43200]) AS bound
                               WHERE took <= bound)::text, '+Inf'), 1)) AS one
WHERE NEW.state = 'DONE'
"""
LOST = "SELECT 'worker_lost', '', '', 1"
RESOURCES = """
SELECT 'resources', key, 'deleted', value::float8 - coalesce((OLD.deleted_counts ->> key)::float8, 0)
FROM jsonb_each_text(NEW.deleted_counts)
WHERE value IS DISTINCT FROM OLD.deleted_counts ->> key
"""
ADDED = (
    "SELECT 'attempts', kind, error_class, sum(attempts)::float8 FROM after WHERE attempts > 0 GROUP BY 2, 3"
)
# To look again whether something has stopped is no attempt, and leaves their number as it is.
CHANGED = """
SELECT 'attempts', kind, error_class, sum(more)::float8
FROM (SELECT kind, after.error_class, after.attempts - before.attempts AS more
      FROM after JOIN before USING (deletion_id, kind, resource_id)) AS tried
WHERE more > 0 GROUP BY 2, 3
UNION ALL
SELECT 'resources', kind, 'skipped', count(*)
FROM after JOIN before USING (deletion_id, kind, resource_id)
WHERE resource_id <> '*' AND before.skipped_by IS NULL AND after.skipped_by IS NOT NULL GROUP BY 2
"""
OF_DELETIONS = {
    "count_ended_deletions": (ENDED, "state", "OLD.state IS DISTINCT FROM NEW.state"),
    "count_lost_workers": (LOST, "fence", "OLD.lease_owner IS NOT NULL AND OLD.fence < NEW.fence"),
    "count_deleted_resources": (
        RESOURCES,
        "deleted_counts",
        "OLD.deleted_counts IS DISTINCT FROM NEW.deleted_counts",
    ),
}
OF_FAILURES = {
    "count_first_attempts": (ADDED, "INSERT", "NEW TABLE AS after"),
    "count_further_attempts": (CHANGED, "UPDATE", "NEW TABLE AS after OLD TABLE AS before"),
}


def upgrade() -> None:
    op.create_table(
        "deletion_counters",
        sa.Column("backend", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("counted", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("backend", "counted", "kind", "label", name="pk_deletion_counters"),
    )
    for name, (changes, column, condition) in OF_DELETIONS.items():
        op.execute(COUNT.format(name=name, changes=changes))
        op.execute(
            f"CREATE TRIGGER {name} AFTER UPDATE OF {column} ON deletions "
            f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {name}()"
        )
    for name, (changes, event, rows) in OF_FAILURES.items():
        op.execute(COUNT.format(name=name, changes=changes))
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON deletion_failures "
            f"REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
        )


def downgrade() -> None:
    for table, names in (("deletions", OF_DELETIONS), ("deletion_failures", OF_FAILURES)):
        for name in names:
            op.execute(f"DROP TRIGGER {name} ON {table}")
            op.execute(f"DROP FUNCTION {name}()")
    op.drop_table("deletion_counters")
