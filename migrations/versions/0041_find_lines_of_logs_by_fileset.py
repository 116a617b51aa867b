"""Find the lines of logs that belong to a folder of a fileset"""

from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.build_index(
        "ix_job_logs_fileset_id",
        "job_logs",
        ["fileset_id", "base_path", "id"],
        where="fileset_id IS NOT NULL",
    )


def downgrade() -> None:
    op.drop_index("ix_job_logs_fileset_id", "job_logs")
