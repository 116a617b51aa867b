"""Count failures by cause as they come and go: an answer about a deletion need not read a hundred thousand of them"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

# Of the owner: a process of the release before may write failures before its role may write this table.
COUNT = """
CREATE FUNCTION count_failures() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    CASE TG_OP
    WHEN 'INSERT' THEN {added};
    WHEN 'DELETE' THEN {removed};
    ELSE {changed};
    END CASE;
    IF FOUND AND TG_OP <> 'INSERT' THEN
        DELETE FROM deletion_failure_counts
        WHERE number = 0 AND deletion_id IN (SELECT deletion_id FROM before);
    END IF;
    RETURN NULL;
END $$
"""
ADD = """
INSERT INTO deletion_failure_counts AS kept
    (deletion_id, kind, error_class, is_skipped, cause_key, cause, number)
SELECT deletion_id, kind, error_class, skipped_by IS NOT NULL, md5(coalesce(cause, message))::uuid,
       min(coalesce(cause, message)), sum(change)
FROM ({changes}) AS every
GROUP BY 1, 2, 3, 4, 5 HAVING sum(change) <> 0 ORDER BY 1, 2, 3, 4, 5
ON CONFLICT (deletion_id, kind, error_class, is_skipped, cause_key)
DO UPDATE SET number = kept.number + excluded.number
"""
NEW, OLD = "SELECT *, 1 AS change FROM after", "SELECT *, -1 AS change FROM before"
TRIGGERS = {
    "count_added_failures": ("INSERT", "NEW TABLE AS after"),
    "count_removed_failures": ("DELETE", "OLD TABLE AS before"),
    "count_changed_failures": ("UPDATE", "NEW TABLE AS after OLD TABLE AS before"),
}


def upgrade() -> None:
    op.create_table(
        "deletion_failure_counts",
        sa.Column("deletion_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("error_class", sa.Text(), nullable=False),
        sa.Column("is_skipped", sa.Boolean(), nullable=False),
        sa.Column("cause_key", sa.Uuid(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["deletion_id"], ["deletions.id"], name="fk_deletion_failure_counts_deletion_id"
        ),
        sa.PrimaryKeyConstraint(
            "deletion_id", "kind", "error_class", "is_skipped", "cause_key", name="pk_deletion_failure_counts"
        ),
    )
    op.create_index("ix_deletion_failure_counts_number", "deletion_failure_counts", ["deletion_id", "number"])
    both = f"{NEW} UNION ALL {OLD}"
    added, removed, changed = (ADD.format(changes=changes) for changes in (NEW, OLD, both))
    op.execute(COUNT.format(added=added, removed=removed, changed=changed))
    for name, (event, rows) in TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON deletion_failures "
            f"REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION count_failures()"
        )


def downgrade() -> None:
    for name in TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON deletion_failures")
    op.execute("DROP FUNCTION count_failures()")
    op.drop_table("deletion_failure_counts")
