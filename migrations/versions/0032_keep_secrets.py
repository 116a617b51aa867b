"""Keep secrets, and in whose name a job uses them"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_secrets_workspace_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_secrets")),
    )
    op.create_index("ix_secrets_workspace_id_id", "secrets", ["workspace_id", "id"])
    op.create_index("uq_secrets_name", "secrets", ["workspace_id", "name"], unique=True)
    op.create_index("ix_secrets_created_at", "secrets", ["workspace_id", "created_at", "id"])
    op.create_index("ix_secrets_key_id", "secrets", ["key_id", "id"])
    op.count_resources("secrets")
    op.add_column("jobs", sa.Column("secret_access", JSONB(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "secret_access")
    op.drop_table("secrets")
