"""Record when each step of the sweep last succeeded, and find what is on a host without reading all that ever was"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "maintenance_steps",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_success_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_maintenance_steps"),
    )
    for table in ("jobs", "deployments"):
        op.create_index(f"ix_{table}_host", table, ["host"], postgresql_where=sa.text("host IS NOT NULL"))


def downgrade() -> None:
    for table in ("jobs", "deployments"):
        op.drop_index(f"ix_{table}_host", table)
    op.drop_table("maintenance_steps")
