"""Keep a force until a worker has carried it out, and find the open failures of a deletion"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deletions", sa.Column("force", postgresql.JSONB(none_as_null=True)))
    op.create_index(
        "ix_deletion_failures_open",
        "deletion_failures",
        ["deletion_id", "first_seen_at", "resource_id"],
        postgresql_where=sa.text("skipped_by IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_deletion_failures_open", "deletion_failures")
    op.drop_column("deletions", "force")
