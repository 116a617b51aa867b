"""Note which processes are alive, and when a deletion last made progress"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("process", "host", name="pk_heartbeats"),
    )
    op.add_column("deletions", sa.Column("last_progress_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("deletions", "last_progress_at")
    op.drop_table("heartbeats")
