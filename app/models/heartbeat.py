"""Which processes are alive."""

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import String, Time


class Heartbeat(Base):
    """When a process was last known to be alive on a host, by the database's clock."""

    __tablename__ = "heartbeats"

    process: Mapped[String] = mapped_column(primary_key=True)
    host: Mapped[String] = mapped_column(primary_key=True)
    heartbeat_at: Mapped[Time]
    messages_rejected: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Messages of the broker that it has rejected, because no program of ours had sent them."""
    job_slots: Mapped[int] = mapped_column(server_default="0")
    """How many jobs may run on the host at a time; 0 while its runtime worker takes up none."""
