"""Keep the lines of logs that belong to a fileset"""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job_logs", sa.Column("fileset_id", sa.Uuid(), nullable=True))
    op.add_column("job_logs", sa.Column("base_path", sa.Text(), nullable=True))
    op.add_column("job_logs", sa.Column("job", sa.Text(), nullable=True))
    op.alter_column("job_logs", "job_id", nullable=True)


def downgrade() -> None:
    # No job could show them.
    op.execute("DELETE FROM job_logs WHERE job_id IS NULL")
    op.alter_column("job_logs", "job_id", nullable=False)
    for column in ("job", "base_path", "fileset_id"):
        op.drop_column("job_logs", column)
