"""Keep the reason of a request to delete"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deletions", sa.Column("request_reason", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("deletions", "request_reason")
