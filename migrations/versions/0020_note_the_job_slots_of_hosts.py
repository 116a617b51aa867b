"""Note how many jobs may run on each host at a time"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("heartbeats", sa.Column("job_slots", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("heartbeats", "job_slots")
