"""Find events of deletions by the transaction that has written them"""

from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.build_index(
        "ix_deletion_events_transaction_id_id",
        "deletion_events",
        ["transaction_id", "id"],
    )


def downgrade() -> None:
    op.drop_index("ix_deletion_events_transaction_id_id", "deletion_events")
