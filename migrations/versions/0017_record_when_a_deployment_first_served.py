"""Record when a deployment first served: from then on it is never given up for being unavailable"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("became_ready_at", sa.DateTime(timezone=True)))
    op.execute(
        "UPDATE deployments SET became_ready_at = updated_at WHERE host IS NOT NULL AND (status = 'READY' "
        "OR jsonb_path_exists(status_history, '$[*] ? (@.status == \"READY\")'))"
    )


def downgrade() -> None:
    op.drop_column("deployments", "became_ready_at")
