"""Note which transaction has written an event of a deletion"""

from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The default is no volatile function: it is evaluated once, for all rows that are there, and no row is written.
    op.execute(
        "ALTER TABLE deletion_events ADD COLUMN transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id()"
    )


def downgrade() -> None:
    op.drop_column("deletion_events", "transaction_id")
