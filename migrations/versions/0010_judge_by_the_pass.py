"""Judge by the pass: a failure counts only if the current pass has seen it"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deletions", sa.Column("pass_started_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("deletions", "pass_started_at")
