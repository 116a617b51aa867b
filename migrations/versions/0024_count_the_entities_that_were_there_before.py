"""Count the entities that were there before"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# One statement, and so one snapshot: what changes meanwhile is counted by the triggers.
COUNT = """
INSERT INTO entity_counts (workspace_id, entity_type, delta)
SELECT workspace_id, entity_type, sum(number)
FROM (SELECT workspace_id, entity_type, count(*) AS number FROM entities GROUP BY 1, 2
      UNION ALL SELECT workspace_id, entity_type, -sum(delta) FROM entity_counts GROUP BY 1, 2) AS counted
GROUP BY 1, 2 HAVING sum(number) <> 0
"""


def upgrade() -> None:
    # In no transaction with the triggers: no writer waits while all entities are read.
    with op.get_context().autocommit_block():
        op.execute(COUNT)


def downgrade() -> None:
    op.execute("DELETE FROM entity_counts")
