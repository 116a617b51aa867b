"""Find the references to a project without reading the whole workspace"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

REFERENCES = {
    "entities": "project IS NOT NULL",
    "jobs": "project IS NOT NULL",
    "deployments": "project IS NOT NULL",
    "deployment_configs": "project IS NOT NULL",
    "filesets": "project <> ''",
}


def upgrade() -> None:
    op.build_index(
        "ix_projects_delete_requested",
        "projects",
        ["delete_requested_at"],
        where="delete_requested_at IS NOT NULL",
    )
    for table, where in REFERENCES.items():
        op.build_index(f"ix_{table}_project", table, ["workspace_id", "project", "id"], where=where)


def downgrade() -> None:
    for table in REFERENCES:
        op.drop_index(f"ix_{table}_project", table)
    op.drop_index("ix_projects_delete_requested", "projects")
