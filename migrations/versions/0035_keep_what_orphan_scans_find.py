"""Keep how many orphans a scan has found, for the metrics"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("orphan_scans", sa.Column("found", JSONB()))


def downgrade() -> None:
    op.drop_column("orphan_scans", "found")
