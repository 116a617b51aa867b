"""Report members whose emails differ only in case: from now on they are one, with the roles of all"""

import sqlalchemy as sa
from alembic import op

from app.logs import get_logger

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

log = get_logger(__name__)

# The bindings stay as they are: an id is still compared exactly, and the previous release compares emails exactly.
RECORD = sa.text(
    """
    INSERT INTO audit_records
        (id, at, event, actor, email, service, address, request_id, workspace_id, workspace_name, subject, detail)
    SELECT gen_random_uuid(), now(), 'member.merged', 'service:migration', '', '', '', '', b.workspace_id, w.name,
        lower(b.principal COLLATE "C"),
        jsonb_build_object('spellings', jsonb_agg(DISTINCT b.principal), 'roles', jsonb_agg(DISTINCT b.role))
    FROM role_bindings b JOIN workspaces w ON w.id = b.workspace_id
    WHERE b.revoked_at IS NULL AND b.principal LIKE '%@%'
    GROUP BY b.workspace_id, w.name, lower(b.principal COLLATE "C")
    HAVING count(DISTINCT b.principal) > 1
    RETURNING workspace_name, subject, detail
    """
)


def upgrade() -> None:
    for workspace, subject, detail in op.get_bind().execute(RECORD):
        log.warning("migration.members_are_one", workspace=workspace, member=subject, **detail)


def downgrade() -> None:
    """The audit log keeps what it has."""
