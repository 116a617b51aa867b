"""Count what workspaces held before"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

TABLES = (
    "jobs",
    "deployments",
    "deployment_configs",
    "job_logs",
    "filesets",
    "projects",
    "role_bindings",
)

# One statement, and so one snapshot: what changes meanwhile is counted by the triggers.
COUNT = """
INSERT INTO resource_counts (workspace_id, kind, entity_type, delta)
SELECT workspace_id, '{table}', '', sum(number)
FROM (SELECT workspace_id, count(*) AS number FROM {table} GROUP BY 1
      UNION ALL SELECT workspace_id, -sum(delta) FROM resource_counts WHERE kind = '{table}' GROUP BY 1) AS counted
GROUP BY 1 HAVING sum(number) <> 0
"""


def upgrade() -> None:
    # In no transaction with the triggers: no writer waits while all rows are read.
    with op.get_context().autocommit_block():
        for table in TABLES:
            op.execute(COUNT.format(table=table))
    op.drop_column("deletions", "created_at_least")


def downgrade() -> None:
    op.add_column(
        "deletions",
        sa.Column(
            "created_at_least",
            postgresql.JSONB(),
            nullable=False,
            server_default=sa.text("'[]'::jsonb"),
        ),
    )
    op.execute("DELETE FROM resource_counts WHERE kind <> 'entities'")
