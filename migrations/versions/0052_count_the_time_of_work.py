"""Count the time in which a deletion was worked on: that in which it was FAILED says nothing of its speed"""

import sqlalchemy as sa
from alembic import op

revision = "0052"
down_revision = "0051"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deletions", sa.Column("reopened_at", sa.DateTime(timezone=True)))
    op.add_column("deletions", sa.Column("worked_seconds", sa.Double()))


def downgrade() -> None:
    op.drop_column("deletions", "worked_seconds")
    op.drop_column("deletions", "reopened_at")
