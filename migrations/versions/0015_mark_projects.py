"""Mark projects that are being deleted"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("delete_requested_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("projects", "delete_requested_at")
