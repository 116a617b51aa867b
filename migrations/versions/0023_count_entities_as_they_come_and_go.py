"""Count entities as they come and go: a list of a million need not count them for each page"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# Of the owner: a process of the release before may write entities before its role may write this table.
COUNT = """
CREATE FUNCTION count_entities() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO entity_counts (workspace_id, entity_type, delta)
        SELECT workspace_id, entity_type, count(*) FROM changed GROUP BY 1, 2;
    ELSE
        INSERT INTO entity_counts (workspace_id, entity_type, delta)
        SELECT workspace_id, entity_type, -count(*) FROM changed GROUP BY 1, 2;
    END IF;
    RETURN NULL;
END $$
"""
TRIGGERS = {"count_added_entities": ("INSERT", "NEW"), "count_removed_entities": ("DELETE", "OLD")}


def upgrade() -> None:
    op.create_table(
        "entity_counts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("entity_type", sa.Text(), nullable=False),
        sa.Column("delta", sa.BigInteger(), nullable=False),
        sa.Column("is_folded", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_entity_counts"),
    )
    op.create_index(
        "ix_entity_counts_sum",
        "entity_counts",
        ["workspace_id", "entity_type"],
        postgresql_include=["delta"],
    )
    op.create_index(
        "ix_entity_counts_new", "entity_counts", ["id"], postgresql_where=sa.text("NOT is_folded")
    )
    op.execute(COUNT)
    for name, (event, rows) in TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON entities "
            f"REFERENCING {rows} TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_entities()"
        )


def downgrade() -> None:
    for name in TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON entities")
    op.execute("DROP FUNCTION count_entities()")
    op.drop_table("entity_counts")
