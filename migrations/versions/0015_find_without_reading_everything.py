"""Find references to projects, role bindings and records of the audit log without reading all of them"""

from alembic import op
from sqlalchemy import text

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

REFERENCES = {
    "entities": "project IS NOT NULL",
    "jobs": "project IS NOT NULL",
    "deployments": "project IS NOT NULL",
    "deployment_configs": "project IS NOT NULL",
    "filesets": "project <> ''",
}
BINDINGS = {
    "email": ([text('lower((principal COLLATE "C"))')], None),
    "name": (["name"], None),
    "revoked_by_deletion": (["revoked_by_deletion"], "revoked_by_deletion IS NOT NULL"),
}
RECORDS = {
    "event": ["event", "at"],
    "subject": ["subject"],
    "email": ["email"],
    "request_id": ["request_id"],
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
    for name, (columns, where) in BINDINGS.items():
        op.build_index(f"ix_role_bindings_{name}", "role_bindings", columns, where=where)
    for name, columns in RECORDS.items():
        op.build_index(f"ix_audit_records_{name}", "audit_records", columns)


def downgrade() -> None:
    for name in RECORDS:
        op.drop_index(f"ix_audit_records_{name}", "audit_records")
    for name in BINDINGS:
        op.drop_index(f"ix_role_bindings_{name}", "role_bindings")
    for table in REFERENCES:
        op.drop_index(f"ix_{table}_project", table)
    op.drop_index("ix_projects_delete_requested", "projects")
