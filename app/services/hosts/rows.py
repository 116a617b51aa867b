"""Jobs and deployments as rows that are on a host."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.orm import Session

from app import lease
from app.models import Deployment, Job

R = TypeVar("R", Job, Deployment)

RELEASED: dict[str, Any] = {"host": None, **lease.RELEASED}
"""The last values that a runner writes, once none of its processes is left."""


def each_row(session: Session, model: type[R], ids: Sequence[UUID]) -> Iterator[R]:
    """The rows of these ids, one after another, each flushed before the next: together they may not fit into memory."""
    for row_id in ids:
        if row := session.get(model, row_id, populate_existing=True):
            yield row
            session.flush()


def release(row: Job | Deployment) -> None:
    """Record that no process of the row is left, on any host."""
    for name, value in RELEASED.items():
        setattr(row, name, value)
