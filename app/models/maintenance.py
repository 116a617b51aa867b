"""The steps of the sweep, and when each of them last succeeded."""

from enum import StrEnum

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import Time


class Step(StrEnum):
    """A step of the sweep. The names are those in `/status` and `/metrics`."""

    REATTEMPT_DELETIONS = "reattempt_deletions"
    ENQUEUE_DELETIONS = "enqueue_deletions"
    MARK_LOST_JOBS = "mark_lost_jobs"
    ENQUEUE_JOBS = "enqueue_jobs"
    MARK_LOST_DEPLOYMENTS = "mark_lost_deployments"
    ENQUEUE_DEPLOYMENTS = "enqueue_deployments"
    REMOVE_DEPLOYMENTS = "remove_deployments"
    REMOVE_PROJECTS = "remove_projects"


class MaintenanceStep(Base):
    """When a step of the sweep last succeeded: written in the transaction of the step. No row before the first time."""

    __tablename__ = "maintenance_steps"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    """A `Step`, or one that a newer release has."""
    last_success_at: Mapped[Time]
