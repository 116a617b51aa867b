"""Record the email of who acted, and the service that acted in that name"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("email", "service"):
        op.add_column("audit_records", sa.Column(name, sa.Text(), server_default="", nullable=False))
        # Only for the lines that are there: new ones say it themselves.
        op.alter_column("audit_records", name, server_default=None)


def downgrade() -> None:
    for name in ("email", "service"):
        op.drop_column("audit_records", name)
