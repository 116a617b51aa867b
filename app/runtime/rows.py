"""Rows of jobs and deployments around their lease: locked before a claim, and found once it has lapsed."""

from collections.abc import Sequence
from typing import TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.lease import has_lapsed
from app.models import Deployment, Job
from app.runtime.lease import Row
from app.services.workspaces import lock_active_workspace

_LOST_AT_ONCE = 200  # Bounds the transaction; the next sweep marks the rest.

R = TypeVar("R", Job, Deployment)


def lock_for_claim(session: Session, model: type[R], row_id: UUID) -> tuple[R, bool] | None:
    """The row, locked, and whether its workspace is ACTIVE; None if there is no such row."""
    workspace_id = session.scalar(select(model.workspace_id).where(model.id == row_id))
    if workspace_id is None:
        return None
    # The workspace first, then the row: the order in which requests take these locks.
    is_active = lock_active_workspace(session, workspace_id)
    row = session.get(model, row_id, with_for_update=True, populate_existing=True)
    return None if row is None else (row, is_active)


def lock_slots(session: Session) -> None:
    """Let no other transaction hand out a job slot or a place until this one ends. The last lock to be taken."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("workspaces job slots", 0))))


def lock_lapsed(session: Session, model: type[R]) -> Sequence[UUID]:
    """The rows whose supervisors did not renew their lease in time, locked; their ids, the oldest first.

    A few hundred at most.
    """
    query = (
        select(model.id)
        .where(model.host.is_not(None), has_lapsed(model))
        .order_by(model.lease_until)
        .limit(_LOST_AT_ONCE)
        .with_for_update(skip_locked=True)  # two sweeps share the work instead of waiting for each other
    )
    return session.scalars(query).all()


def take_lease_away(row: Row) -> None:
    """End the lease of a lost runner. The host stays on record: processes may be alive there."""
    row.lease_owner = row.lease_until = None
    # A runner that wakes up later holds an outdated fencing token and cannot write.
    row.fence += 1
