"""Column types and mixins shared by the tables."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Enum, ForeignKey, Index, Text, inspect, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.orm import Mapped, defer, mapped_column
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.types import UserDefinedType
from uuid_utils.compat import uuid7

from app.clock import database_now

Id = Annotated[UUID, mapped_column(primary_key=True, default=uuid7)]
"""UUID version 7: ids sort by age, so pages list rows in the order of their creation."""

Time = Annotated[datetime, mapped_column(DateTime(timezone=True))]
Now = Annotated[datetime, mapped_column(DateTime(timezone=True), default=database_now())]
"""The database's time when the row is inserted."""
Json = Annotated[dict[str, Any], mapped_column(JSONB, default=dict, server_default=text("'{}'::jsonb"))]
String = Annotated[str, mapped_column(Text)]


class TransactionId(UserDefinedType[str]):
    """`xid8` of PostgreSQL: the number of a transaction, which no later one of the same server has again."""

    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        """Its name in SQL."""
        return "xid8"


# A migration is compared with the models; SQLAlchemy does not know the type by itself.
ischema_names["xid8"] = TransactionId


def state_column(kind: type[StrEnum]) -> Enum:
    """A text column for the members of `kind`, with a CHECK constraint."""
    return Enum(
        kind,
        native_enum=False,
        length=16,
        name=f"{kind.__name__.lower()}_known",
        create_constraint=True,
        values_callable=lambda members: [member.value for member in members],
    )


def without_documents(model: type[Any]) -> list[ORMOption]:
    """Options of a query of `model` by which the documents of a row are read only when they are asked for."""
    attributes = inspect(model).column_attrs
    return [defer(getattr(model, one.key)) for one in attributes if isinstance(one.columns[0].type, JSONB)]


def project_index(table: str, *, where: str = "project IS NOT NULL") -> Index:
    """The index by which the rows that name a project are found."""
    return Index(f"ix_{table}_project", "workspace_id", "project", "id", postgresql_where=text(where))


class InWorkspace:
    """A row that belongs to a workspace.

    RESTRICT, never CASCADE: the database refuses to delete a workspace while any row below it remains.
    """

    id: Mapped[Id]
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspaces.id", ondelete="RESTRICT"))


class Stamped:
    """Who created the row and who changed it last, and when."""

    created_at: Mapped[Now]
    created_by: Mapped[str] = mapped_column(Text, default="")
    updated_at: Mapped[Now]
    updated_by: Mapped[str] = mapped_column(Text, default="")


class Leased:
    """Lease columns: which worker has the lease of the row, until when, and with which fencing token."""

    id: Mapped[Id]
    lease_owner: Mapped[str | None] = mapped_column(Text)
    """The worker that has the lease, or None."""
    lease_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    fence: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """The fencing token: it grows with each claim, and every write of a worker carries the one of its claim."""


class Supervised(Leased):
    """Lease columns: which runtime worker supervises the row's processes, and on which host."""

    host: Mapped[str | None] = mapped_column(Text)
    """The runtime host on which processes may be alive. Cleared only after that host has seen all of them end."""
