"""Use the words of the field: who holds a lease, and when a message was last enqueued"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

RENAMED = (
    ("deletions", "rung_at", "last_enqueued_at"),
    ("jobs", "runner", "lease_owner"),
    ("deployments", "runner", "lease_owner"),
)


def upgrade() -> None:
    for table, before, after in RENAMED:
        op.alter_column(table, before, new_column_name=after)
    op.alter_column("deletions", "fence", server_default=sa.text("0"))


def downgrade() -> None:
    op.alter_column("deletions", "fence", server_default=None)
    for table, before, after in RENAMED:
        op.alter_column(table, after, new_column_name=before)
