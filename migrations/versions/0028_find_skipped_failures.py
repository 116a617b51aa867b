"""Find skipped failures"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.build_index(
        "ix_deletion_failures_skipped",
        "deletion_failures",
        ["deletion_id", "kind", "resource_id"],
        where="skipped_by IS NOT NULL",
    )


def downgrade() -> None:
    op.drop_index("ix_deletion_failures_skipped", "deletion_failures")
