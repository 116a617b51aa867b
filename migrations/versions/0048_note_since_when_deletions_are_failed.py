"""Note since when a deletion has been FAILED: to look for it in its events took longer than all else"""

from alembic import op

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None

# By a trigger: a worker of the release before, which does not know the column, would leave an earlier time in it.
NOTE = """
CREATE OR REPLACE FUNCTION note_failed_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.failed_at := CASE WHEN NEW.state = 'FAILED' THEN statement_timestamp() END;
    RETURN NEW;
END $$
"""
TRIGGER = """
CREATE OR REPLACE TRIGGER note_failed_at BEFORE UPDATE OF state ON deletions FOR EACH ROW
WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION note_failed_at()
"""
BEFORE = """
UPDATE deletions SET failed_at = (
    SELECT at FROM deletion_events WHERE deletion_id = deletions.id AND event = 'failed' ORDER BY id DESC LIMIT 1
) WHERE state = 'FAILED' AND failed_at IS NULL
"""


def upgrade() -> None:
    op.execute("ALTER TABLE deletions ADD COLUMN IF NOT EXISTS failed_at timestamptz")
    op.execute(NOTE)
    op.execute(TRIGGER)
    # In no transaction with these: nobody waits while the events are read. An attempt that ends here is repeated.
    with op.get_context().autocommit_block():
        op.execute(BEFORE)


def downgrade() -> None:
    op.execute("DROP TRIGGER note_failed_at ON deletions")
    op.execute("DROP FUNCTION note_failed_at()")
    op.drop_column("deletions", "failed_at")
