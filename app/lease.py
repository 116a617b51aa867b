"""The lease on a row: one holder at a time, and every write of the holder names the fencing token of its claim.

Deletions are leased by cleanup workers, jobs and deployments by runtime workers. Who may claim a row, and when, is
theirs to say: see `app.cleanup.lease` and `app.runtime.lease`.
"""

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, and_, or_, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.interfaces import ORMOption

from app.clock import database_now
from app.models.columns import Leased

R = TypeVar("R", bound=Leased)

RELEASED: dict[str, None] = {"lease_owner": None, "lease_until": None}
"""Column values that give the lease back."""


class LeaseLost(Exception):
    """Another worker holds the row now: this one stops what it does, and writes nothing more."""

    def __init__(self, model: type[Leased], row_id: UUID, fence: int) -> None:
        super().__init__(f"{model.__name__.lower()} {row_id}: fencing token {fence} is outdated")


def is_held(
    model: type[Leased], row_id: UUID | BindParameter[UUID], fence: int | BindParameter[int]
) -> ColumnElement[bool]:
    """Whether the row may still be written by the holder of that fencing token, as a condition of a query."""
    return and_(model.id == row_id, model.fence == fence, model.lease_owner.is_not(None))


def write(
    session: Session,
    model: type[R],
    row_id: UUID,
    fence: int,
    *guards: ColumnElement[bool],
    options: Sequence[ORMOption] = (),
    **values: Any,
) -> R:
    """Change a row under its fencing token, in the caller's transaction; the row as it is now, read with `options`.

    `guards` are further conditions. Raises LeaseLost, and then nothing has changed.
    """
    row = session.scalars(
        update(model)
        .where(is_held(model, row_id, fence), *guards)
        .values(**values)
        .returning(model)
        .options(*options),
        execution_options={"populate_existing": True},
    ).one_or_none()
    if row is None:
        raise LeaseLost(model, row_id, fence)
    return row


def holds(model: type[Leased]) -> ColumnElement[bool]:
    """Whether a row has an owner whose lease has not run out, as a condition of a query."""
    return and_(model.lease_owner.is_not(None), model.lease_until > database_now())


def has_lapsed(model: type[Leased]) -> ColumnElement[bool]:
    """Whether the holder of a row has let its lease run out, as a condition of a query."""
    return and_(
        model.lease_owner.is_not(None), or_(model.lease_until.is_(None), model.lease_until <= database_now())
    )
