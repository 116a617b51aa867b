"""Supervise the processes of jobs and deployments"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("jobs", "deployments"):
        op.add_column(table, sa.Column("host", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("runner", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))
        op.add_column(table, sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    empty = sa.text("'[]'::jsonb")
    for column in ("steps", "results"):
        op.add_column(
            "jobs",
            sa.Column(column, postgresql.JSONB(astext_type=sa.Text()), server_default=empty, nullable=False),
        )
    op.add_column("deployments", sa.Column("address", sa.Text(), nullable=True))
    op.create_table(
        "job_logs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_job_logs_workspace_id"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_logs")),
    )
    op.create_index("ix_job_logs_workspace_id_id", "job_logs", ["workspace_id", "id"])
    op.create_index("ix_job_logs_job_id_attempt_id_id", "job_logs", ["job_id", "attempt_id", "id"])


def downgrade() -> None:
    op.drop_table("job_logs")
    op.drop_column("deployments", "address")
    for column in ("steps", "results"):
        op.drop_column("jobs", column)
    for table in ("jobs", "deployments"):
        for column in ("host", "runner", "lease_until", "fence"):
            op.drop_column(table, column)
