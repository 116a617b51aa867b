"""How tests let time pass: leases and due times follow the database's clock, so rows are made older instead."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, inspect, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.clock import database_now, seconds_from_now
from app.models import (
    CleanupControl,
    Deletion,
    DeletionFailure,
    DeletionHold,
    Delivery,
    Deployment,
    Heartbeat,
    Job,
    MaintenanceStep,
    Subscription,
)
from app.models.maintenance import Step

_WITH_LEASES = (
    Deletion,
    DeletionFailure,
    DeletionHold,
    CleanupControl,
    Job,
    Deployment,
    MaintenanceStep,
    Heartbeat,
    Subscription,
    Delivery,
)


def age(session: Session, row: Any, seconds: float) -> None:
    """Move all times of a row so many seconds into the past, or into the future if negative. Commits."""
    model = type(row)
    key = [column == getattr(row, column.name) for column in inspect(model).primary_key]
    session.flush()
    session.execute(_aged(model, seconds).where(*key), execution_options={"synchronize_session": False})
    session.commit()
    session.refresh(row)


def age_everything(session: Session, seconds: float) -> None:
    """Move the times of all leases, due times and heartbeats so many seconds into the past. Commits."""
    for model in _WITH_LEASES:
        session.execute(_aged(model, seconds), execution_options={"synchronize_session": False})
    session.commit()


def note_sweeps(session: Session, seconds: float) -> None:
    """Sweeps have succeeded again and again for so many seconds, the last time just now. Commits."""
    values = {"last_success_at": database_now(), "unbroken_since": seconds_from_now(-seconds)}
    noted = insert(MaintenanceStep).values([{"name": step.value, **values} for step in Step])
    session.execute(noted.on_conflict_do_update(index_elements=["name"], set_=values))
    session.commit()


def time_of(session: Session) -> datetime:
    """The database's time."""
    return session.scalars(select(database_now())).one()


def _aged(model: type[Any], seconds: float) -> Any:
    times = [column for column in model.__table__.columns if isinstance(column.type, DateTime)]
    return update(model).values({column.name: column - timedelta(seconds=seconds) for column in times})
