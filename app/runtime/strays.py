"""What runs that are no longer this host's have left on it: an administrator may give them up while it is away."""

from uuid import UUID

from app.context import Context
from app.db import session_scope
from app.logs import get_logger
from app.models import Deployment, Job
from app.runtime.lease import Row, Runner
from app.runtime.leftovers import kill_leftovers
from app.runtime.workdir import WorkDirectory, run_ids

log = get_logger(__name__)


def remove_strays(context: Context) -> list[UUID]:
    """Kill the processes of runs that are not on record as being here, and remove their directories; their ids.

    A row that names this host is left to its supervisor. While a row is there at all its directory stays, too: it
    may be taken up here again. One that is gone never comes back. Of other hosts and installations nothing is
    touched. Raises SQLAlchemy's errors.
    """
    here = Runner.of_this_process(context.settings).host
    strays = []
    for run in sorted(run_ids(context.settings)):
        with session_scope(context.sessions) as session:
            # Locked while its processes are killed: it must not be taken up here meanwhile, and its new ones go.
            row: Row | None = session.get(Job, run, with_for_update=True)
            row = row or session.get(Deployment, run, with_for_update=True)
            if row and row.host == here:
                continue
            is_killed = kill_leftovers(run, within_s=context.settings.stop_grace_seconds)
        strays.append(run)
        if not is_killed:
            log.error("runtime.stray_remains", run=str(run))
        elif row is None:
            WorkDirectory(context.settings, run).discard()
            log.warning("runtime.stray_removed", run=str(run))
    return strays
