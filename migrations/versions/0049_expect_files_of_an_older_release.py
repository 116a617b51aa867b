"""Expect files of an older release: which store holds them was recorded nowhere, so an empty one is not taken"""

from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE store ALTER COLUMN store DROP NOT NULL")
    op.execute("INSERT INTO store (id) SELECT 1 WHERE EXISTS (SELECT FROM filesets) ON CONFLICT DO NOTHING")


def downgrade() -> None:
    op.execute("DELETE FROM store WHERE store IS NULL")
    op.execute("ALTER TABLE store ALTER COLUMN store SET NOT NULL")
