"""Let the results of a job go to a fileset that stays when the job goes"""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("output_location", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "output_location")
