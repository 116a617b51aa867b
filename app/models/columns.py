"""Column shapes that every table of a workspace shares."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Enum, ForeignKey, MetaData, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from app import clock

Id = Annotated[UUID, mapped_column(primary_key=True, default=uuid7)]
"""Version 7, so that ids sort by age and pages read in the order things were made."""

Time = Annotated[datetime, mapped_column(DateTime(timezone=True))]
Now = Annotated[datetime, mapped_column(DateTime(timezone=True), default=clock.now)]
Json = Annotated[dict[str, Any], mapped_column(JSONB, default=dict, server_default=text("'{}'::jsonb"))]
String = Annotated[str, mapped_column(Text)]


def state_column(kind: type[StrEnum]) -> Enum:
    """A text column that holds a member of `kind`, checked by the database too."""
    return Enum(
        kind,
        native_enum=False,
        length=16,
        name=f"{kind.__name__.lower()}_known",
        create_constraint=True,
        values_callable=lambda members: [member.value for member in members],
    )


class InWorkspace:
    """A row that belongs to a workspace.

    RESTRICT, never CASCADE: the database itself refuses to drop a workspace while anything of it remains.
    """

    id: Mapped[Id]
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspaces.id", ondelete="RESTRICT"))


class Stamped:
    """Who made the row and who changed it last, and when."""

    created_at: Mapped[Now]
    created_by: Mapped[str] = mapped_column(Text, default="")
    updated_at: Mapped[Now]
    updated_by: Mapped[str] = mapped_column(Text, default="")


class Leased:
    """Lease columns: which worker holds the row, until when, and under which fencing token."""

    id: Mapped[Id]
    lease_owner: Mapped[str | None] = mapped_column(Text)
    """The holder; empty when nobody has the lease."""
    lease_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    fence: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """The fencing token: it grows with each claim, and every write of a holder names the one it was given."""


class Supervised(Leased):
    """Lease columns of a job or a deployment, whose processes are on one host."""

    host: Mapped[str | None] = mapped_column(Text)
    """The runtime host on which processes may be alive; empty only when that host has seen that none is."""


def tables_of_workspaces(metadata: MetaData) -> list[Table]:
    """Every table whose rows hang on a workspace, directly or through another table."""
    reached = {"workspaces"}
    while True:
        more = {
            table.name
            for table in metadata.tables.values()
            if table.name not in reached
            and any(key.column.table.name in reached for key in table.foreign_keys)
        }
        if not more:
            return [metadata.tables[name] for name in sorted(reached - {"workspaces"})]
        reached |= more
