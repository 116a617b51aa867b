"""Count the failures that were there before"""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

# One statement, and so one snapshot: what changes meanwhile is counted by the triggers.
COUNT = """
INSERT INTO deletion_failure_counts AS kept
    (deletion_id, kind, error_class, is_skipped, cause_key, cause, number)
SELECT deletion_id, kind, error_class, is_skipped, cause_key, min(cause), sum(number)
FROM (SELECT deletion_id, kind, error_class, skipped_by IS NOT NULL AS is_skipped,
             md5(coalesce(cause, message))::uuid AS cause_key, coalesce(cause, message) AS cause, 1 AS number
      FROM deletion_failures
      UNION ALL
      SELECT deletion_id, kind, error_class, is_skipped, cause_key, cause, -number FROM deletion_failure_counts
     ) AS counted
GROUP BY 1, 2, 3, 4, 5 HAVING sum(number) <> 0 ORDER BY 1, 2, 3, 4, 5
ON CONFLICT (deletion_id, kind, error_class, is_skipped, cause_key)
DO UPDATE SET number = kept.number + excluded.number
"""


def upgrade() -> None:
    # In no transaction with the triggers: nobody who writes failures waits while all of them are read.
    with op.get_context().autocommit_block():
        op.execute(COUNT)
        op.execute("DELETE FROM deletion_failure_counts WHERE number = 0")


def downgrade() -> None:
    op.execute("DELETE FROM deletion_failure_counts")
