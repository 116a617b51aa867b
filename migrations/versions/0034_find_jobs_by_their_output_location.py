"""Find the jobs that may still write to a fileset, before it is deleted"""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

UNENDED = (
    "output_location IS NOT NULL AND status IN "
    "('active', 'cancelling', 'created', 'paused', 'pausing', 'pending', 'resuming')"
)


def upgrade() -> None:
    op.build_index("ix_jobs_output_location", "jobs", ["workspace_id", "output_location"], where=UNENDED)


def downgrade() -> None:
    op.drop_index("ix_jobs_output_location", "jobs")
