"""Know the store: which one holds the files, so that another is never taken for an empty one"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "store",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("adopted_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("adopted_by", sa.Text),
        sa.CheckConstraint("id = 1", name="single"),
    )


def downgrade() -> None:
    op.drop_table("store")
