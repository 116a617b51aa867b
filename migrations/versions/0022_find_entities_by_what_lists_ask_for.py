"""Find entities by what lists ask for"""

from alembic import op
from psycopg.errors import FeatureNotSupported, InsufficientPrivilege, UndefinedFile
from sqlalchemy.exc import DBAPIError

from app.logs import get_logger

log = get_logger(__name__)

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

SORTED_BY = ("created_at", "updated_at", "name")


def upgrade() -> None:
    for field in SORTED_BY:
        op.build_index(f"ix_entities_{field}", "entities", ["workspace_id", "entity_type", field, "id"])
    op.build_index(
        "ix_entities_data",
        "entities",
        ["data"],
        postgresql_using="gin",
        postgresql_ops={"data": "jsonb_path_ops"},
    )
    if has_trigrams():
        op.build_index(
            "ix_entities_part_of_name",
            "entities",
            ["name"],
            postgresql_using="gin",
            postgresql_ops={"name": "gin_trgm_ops"},
        )


def has_trigrams() -> bool:
    """Whether the extension is there now. It comes with PostgreSQL, but may not be installed, or not ours to create."""
    try:
        with op.get_bind().begin_nested():
            op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except DBAPIError as error:
        if not isinstance(error.orig, FeatureNotSupported | InsufficientPrivilege | UndefinedFile):
            raise
        log.warning(
            "migration.extension_missing",
            extension="pg_trgm",
            reason=str(error.orig).strip(),
            result="a search for a part of a name reads all entities of its workspace; see docs/upgrading.md",
        )
        return False
    return True


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS ix_entities_part_of_name")
    for name in ("data", *SORTED_BY):
        op.drop_index(f"ix_entities_{name}", "entities")
