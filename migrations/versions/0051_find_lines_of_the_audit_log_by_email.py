"""Find lines of the audit log by email, however it is written"""

import sqlalchemy as sa
from alembic import op

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("actor", "email"):
        name, folded = f"ix_audit_records_folded_{column}", sa.text(f'lower({column} COLLATE "C")')
        op.build_index(name, "audit_records", [folded])


def downgrade() -> None:
    for column in ("email", "actor"):
        op.drop_index(f"ix_audit_records_folded_{column}", "audit_records")
