"""Find jobs and filesets by age"""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

TABLES = ("jobs", "filesets")


def upgrade() -> None:
    for table in TABLES:
        op.build_index(f"ix_{table}_created_at", table, ["workspace_id", "created_at", "id"])


def downgrade() -> None:
    for table in TABLES:
        op.drop_index(f"ix_{table}_created_at", table)
