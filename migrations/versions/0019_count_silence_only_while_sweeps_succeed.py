"""Record since when the steps of the sweep succeed: the silence of a host counts only meanwhile"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("maintenance_steps", sa.Column("unbroken_since", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("maintenance_steps", "unbroken_since")
