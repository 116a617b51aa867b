"""Find the jobs that wait for a slot, and those that take one, without reading all of a workspace"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

WAITING = "host IS NULL AND status IN ('created', 'pending', 'resuming')"
RUNNING = "host IS NOT NULL AND status IN ('active', 'cancelling', 'pausing', 'pending', 'resuming')"


def upgrade() -> None:
    op.build_index("ix_jobs_waiting", "jobs", ["workspace_id", "id"], where=WAITING)
    op.build_index("ix_jobs_slot", "jobs", ["workspace_id", "host"], where=RUNNING)


def downgrade() -> None:
    op.drop_index("ix_jobs_slot", "jobs")
    op.drop_index("ix_jobs_waiting", "jobs")
