"""Find lines of the audit log by email, however it is written"""

import sqlalchemy as sa
from alembic import op

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.build_index("ix_audit_records_folded_email", "audit_records", [sa.text('lower(email COLLATE "C")')])


def downgrade() -> None:
    op.drop_index("ix_audit_records_folded_email", "audit_records")
