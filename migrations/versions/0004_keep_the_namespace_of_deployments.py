"""Keep the namespace of deployments"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("namespace", sa.Text(), nullable=True))
    # Of those that serve, the address tells it: http://ws-<id>.<namespace>.svc:<port>
    op.execute(
        "UPDATE deployments SET namespace = split_part(address, '.', 2) "
        "WHERE host = 'kubernetes' AND address IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_column("deployments", "namespace")
