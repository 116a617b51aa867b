"""What the database counts by itself: how many resources there are, and what becomes of deletions."""

from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Float, Identity, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import String


class ResourceCount(Base):
    """How the number of resources of one kind in one workspace has changed: their sum is how many there are.

    Appended by triggers of the kind's table in the transaction of each change, so that no two writers wait for each
    other. Without a foreign key: the last rows of a workspace may stay until they are folded, after it has gone.
    """

    __tablename__ = "resource_counts"
    __table_args__ = (
        Index("ix_resource_counts_sum", "workspace_id", "kind", "entity_type", postgresql_include=["delta"]),
        Index("ix_resource_counts_new", "id", postgresql_where=text("NOT is_folded")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    workspace_id: Mapped[UUID]
    kind: Mapped[String]
    """The name of the kind, which is that of its table."""
    entity_type: Mapped[String]
    """Entities are counted by type; of the other kinds it is empty."""
    delta: Mapped[int] = mapped_column(BigInteger)
    is_folded: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    """Whether it is the sum of earlier rows."""


class Counted(StrEnum):
    """What is counted of deletions, and by which label besides the kind."""

    ENDED = "ended"  #: By outcome.
    DURATION = "duration"  #: Of those that are DONE, by the smallest bucket that holds it.
    DURATION_SUM = "duration_sum"  #: In seconds.
    RESOURCES = "resources"  #: By outcome.
    ATTEMPTS = "attempts"  #: By class of the error.
    WORKER_LOST = "worker_lost"


class DeletionCounter(Base):
    """A number that only grows: the sum over all backends. It does not begin anew when a process does.

    Counted by triggers, in the transaction of the change. Each connection counts in rows of its own, under the number
    of the server process that serves it, which no two transactions have at once: so none waits for another. Rows of
    those that are gone are folded into rows of `FOLDED`.
    """

    __tablename__ = "deletion_counters"

    backend: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    counted: Mapped[String] = mapped_column(primary_key=True)
    """A `Counted`, or one that a newer release has."""
    kind: Mapped[String] = mapped_column(primary_key=True)
    """The kind of the resources, or empty."""
    label: Mapped[String] = mapped_column(primary_key=True)
    """The outcome, the class of the error or the upper bound of the bucket, or empty."""
    value: Mapped[float] = mapped_column(Float(53))


FOLDED = 0
"""No server process has this number."""
