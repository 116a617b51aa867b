"""Make access keys"""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "access_keys",
        sa.Column("jti", sa.Text(), nullable=False),
        sa.Column(
            "holder",
            sa.Enum(
                "USER",
                "SERVICE_ACCOUNT",
                name="accesskeyholder_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("jti", name=op.f("pk_access_keys")),
    )
    op.create_index("ix_access_keys_holder", "access_keys", ["holder", "principal", "created_at"])
    op.create_index("ix_access_keys_ended_at", "access_keys", [sa.text("LEAST(revoked_at, expires_at)")])


def downgrade() -> None:
    op.drop_table("access_keys")
