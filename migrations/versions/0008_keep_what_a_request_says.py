"""Keep what a request to delete says, the breaker's holds, and whose turn it was"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deletions", sa.Column("request_reason", sa.Text(), nullable=True))
    op.add_column("deletions", sa.Column("workspace_created_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("deletions", sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_deletions_claimed_at",
        "deletions",
        ["claimed_at"],
        postgresql_where=sa.text("claimed_at IS NOT NULL"),
    )
    op.create_index(
        "ix_deletions_turn",
        "deletions",
        ["requested_by", "next_run_at"],
        postgresql_where=sa.text("state = 'DELETING'"),
    )
    op.create_index("ix_deletions_requested_by", "deletions", ["requested_by", "requested_at"])
    op.create_table(
        "deletion_holds",
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("requested_by", name=op.f("pk_deletion_holds")),
    )


def downgrade() -> None:
    op.drop_table("deletion_holds")
    op.drop_index("ix_deletions_requested_by", table_name="deletions")
    op.drop_index("ix_deletions_turn", table_name="deletions")
    op.drop_index("ix_deletions_claimed_at", table_name="deletions")
    op.drop_column("deletions", "claimed_at")
    op.drop_column("deletions", "workspace_created_at")
    op.drop_column("deletions", "request_reason")
