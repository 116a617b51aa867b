"""Count what workspaces hold as it comes and goes: a preview and the start of a deletion read a row per kind"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

TABLES = (
    "jobs",
    "deployments",
    "deployment_configs",
    "job_logs",
    "filesets",
    "projects",
    "role_bindings",
)

# As the function of `entities`, which counts by type: of the owner, and in the schema of the table.
COUNT = """
CREATE FUNCTION count_resources() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO resource_counts (workspace_id, kind, entity_type, delta)
    SELECT workspace_id, TG_TABLE_NAME, '', CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM changed GROUP BY 1;
    RETURN NULL;
END $$
"""
COUNT_ENTITIES = """
CREATE OR REPLACE FUNCTION count_entities() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO {table}
    SELECT workspace_id, {kind} entity_type, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM changed GROUP BY workspace_id, entity_type;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    op.rename_table("entity_counts", "resource_counts")
    op.execute("ALTER TABLE resource_counts RENAME CONSTRAINT pk_entity_counts TO pk_resource_counts")
    op.execute("ALTER INDEX ix_entity_counts_new RENAME TO ix_resource_counts_new")
    op.add_column(
        "resource_counts",
        sa.Column("kind", sa.Text(), nullable=False, server_default=sa.text("'entities'")),
    )
    op.alter_column("resource_counts", "kind", server_default=None)
    op.drop_index("ix_entity_counts_sum", "resource_counts")
    op.create_index(
        "ix_resource_counts_sum",
        "resource_counts",
        ["workspace_id", "kind", "entity_type"],
        postgresql_include=["delta"],
    )
    op.execute(
        COUNT_ENTITIES.format(
            table="resource_counts (workspace_id, kind, entity_type, delta)", kind="'entities',"
        )
    )
    op.execute(COUNT)
    for table in TABLES:
        op.count_resources(table)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TRIGGER count_added ON {table}")
        op.execute(f"DROP TRIGGER count_removed ON {table}")
    op.execute("DROP FUNCTION count_resources()")
    op.execute("DELETE FROM resource_counts WHERE kind <> 'entities'")
    op.drop_index("ix_resource_counts_sum", "resource_counts")
    op.drop_column("resource_counts", "kind")
    op.create_index(
        "ix_entity_counts_sum",
        "resource_counts",
        ["workspace_id", "entity_type"],
        postgresql_include=["delta"],
    )
    op.execute("ALTER INDEX ix_resource_counts_new RENAME TO ix_entity_counts_new")
    op.execute("ALTER TABLE resource_counts RENAME CONSTRAINT pk_resource_counts TO pk_entity_counts")
    op.rename_table("resource_counts", "entity_counts")
    op.execute(COUNT_ENTITIES.format(table="entity_counts (workspace_id, entity_type, delta)", kind=""))
