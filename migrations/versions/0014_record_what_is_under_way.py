"""Record what is under way: projects that are being deleted, and the orphan scan"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("delete_requested_at", sa.DateTime(timezone=True)))
    op.create_table(
        "orphan_scans",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("busy_until", sa.DateTime(timezone=True)),
        sa.Column("progress", JSONB()),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("id = 1", name="only_one"),
        sa.PrimaryKeyConstraint("id", name="pk_orphan_scans"),
    )


def downgrade() -> None:
    op.drop_table("orphan_scans")
    op.drop_column("projects", "delete_requested_at")
