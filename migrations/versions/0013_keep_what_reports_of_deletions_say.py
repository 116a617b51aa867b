"""Keep what reports of deletions say: which counts are lower bounds, and what failures have in common"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "deletions",
        sa.Column(
            "created_at_least", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'::jsonb")
        ),
    )
    op.add_column("deletion_failures", sa.Column("cause", sa.Text()))


def downgrade() -> None:
    op.drop_column("deletion_failures", "cause")
    op.drop_column("deletions", "created_at_least")
