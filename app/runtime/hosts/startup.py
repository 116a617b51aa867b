"""What is left on a host when a runtime worker starts there: of runs that earlier workers had, and of none."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import clock
from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.dispatch import Message, deployment_message, job_message
from app.logs import get_logger
from app.models import Deployment, Job
from app.runtime.deployments.backends.kubernetes import has_kubernetes
from app.runtime.deployments.contract import KUBERNETES
from app.runtime.jobs import supervisor
from app.runtime.lease import Row, Runner, is_supervised
from app.runtime.processes.leaked_processes import kill_leaked_processes
from app.runtime.processes.workdir import WorkDirectory, run_ids

log = get_logger(__name__)


def reap_unsupervised(context: Context) -> None:
    """Bury the jobs and kill the servers that nobody on this host supervises any more.

    Whoever is rung for the deployments starts them anew. One that fails keeps no other from it; the sweep rings for
    it. Raises SQLAlchemy's errors if it is not known what was here.
    """
    here = Runner.of_this_process(context.settings).host
    with session_scope(context.sessions) as session:
        left = {
            model: session.scalars(select(model.id).where(model.host == here).order_by(model.id)).all()
            for model in (Job, Deployment)
        }
    for model, end in ((Job, supervisor.reap), (Deployment, _kill_server)):
        for run in left[model]:
            try:
                end(context, run)
            except Exception:
                log.exception("runtime.left_remains", run=str(run))


def _kill_server(context: Context, deployment_id: UUID) -> None:
    runner = Runner.of_this_process(context.settings)
    with session_scope(context.sessions) as session:
        row = session.get(Deployment, deployment_id, with_for_update=True)
        if row and row.host == runner.host and not is_supervised(row, runner, now=clock.now()):
            _kill(context, deployment_id)


def remove_unowned_runs(context: Context) -> list[UUID]:
    """Kill the processes of runs that are not on record as being here, and remove their directories; their ids.

    An administrator may give them up while their host is away. A row that names this host is left to its supervisor.
    While a row is there at all its directory stays, too: it may be taken up here again. One that is gone never comes
    back. Of other hosts and installations nothing is touched. Raises SQLAlchemy's errors.
    """
    here = Runner.of_this_process(context.settings).host
    unowned = []
    for run in sorted(run_ids(context.settings)):
        with session_scope(context.sessions) as session:
            row = _locked(session, run)
            if row and row.host == here:
                continue
            is_killed = _kill(context, run)
        unowned.append(run)
        if is_killed and row is None:
            WorkDirectory(context.settings, run).discard()
            log.warning("runtime.stray_removed", run=str(run))
    return unowned


def _locked(session: Session, run: UUID) -> Row | None:
    return session.get(Job, run, with_for_update=True) or session.get(Deployment, run, with_for_update=True)


def _kill(context: Context, run: UUID) -> bool:
    """The row, if there is one, is locked meanwhile: it must not be taken up here, and its new processes go."""
    is_killed = kill_leaked_processes(run, within_s=context.settings.stop_grace_seconds)
    if not is_killed:
        log.error("runtime.stray_remains", run=str(run))
    return is_killed


def hosts_of(settings: Settings) -> list[str]:
    """The hosts for which a worker of this process can speak: its own, and the cluster that all workers share.

    The cluster whichever runtime is set: what was made there under another setting has to be looked after too.
    """
    own = Runner.of_this_process(settings).host
    return [own, KUBERNETES] if has_kubernetes() else [own]


def messages_for_hosts(session: Session, hosts: list[str]) -> list[Message]:
    """Rings for every row of which processes may be alive on these hosts: whoever starts there looks after them."""
    return [
        *_messages(session, Job, job_message, hosts),
        *_messages(session, Deployment, deployment_message, hosts),
    ]


def _messages(
    session: Session, model: type[Any], message: Callable[..., Message], hosts: list[str]
) -> list[Message]:
    rows = session.scalars(select(model).where(model.host.in_(hosts)).order_by(model.id))
    return [message(row.id, row.workspace_id, row.name, row.host) for row in rows]
