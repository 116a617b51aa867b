"""What runs without a row have left on this host: an administrator may skip a job while its host is away."""

from uuid import UUID

from sqlalchemy import select

from app.context import Context
from app.db import session_scope
from app.logs import get_logger
from app.models import Deployment, Job
from app.runtime.leftovers import kill_leftovers
from app.runtime.workdir import WorkDirectory, run_ids

log = get_logger(__name__)


def remove_strays(context: Context) -> list[UUID]:
    """Kill the processes and remove the directories of runs whose rows are gone; the ids of those runs.

    A row that is there is left to its supervisor; one that is gone never comes back. Raises SQLAlchemy's errors.
    """
    there = run_ids(context.settings)
    with session_scope(context.sessions) as session:
        known = {
            row
            for model in (Job, Deployment)
            for row in session.scalars(select(model.id).where(model.id.in_(there)))
        }
    strays = sorted(there - known)
    for run in strays:
        if kill_leftovers(run, within_s=context.settings.stop_grace_seconds):
            WorkDirectory(context.settings, run).discard()
            log.warning("runtime.stray_removed", run=str(run))
        else:
            log.error("runtime.stray_remains", run=str(run))
    return strays
