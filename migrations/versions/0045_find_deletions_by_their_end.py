"""Find deletions by their end"""

from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.build_index(
        "ix_deletions_finished_at",
        "deletions",
        ["finished_at", "id"],
        where="state IN ('DONE', 'RESTORED')",
    )


def downgrade() -> None:
    op.drop_index("ix_deletions_finished_at", "deletions")
