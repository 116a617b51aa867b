"""The start of a runtime worker: it ends what earlier workers left on its host, and removes unowned runs."""

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.dispatch import Message, deployment_message, job_message
from app.logs import get_logger
from app.models import Deployment, Job
from app.models.columns import without_documents
from app.runtime.deployments.backends.kubernetes import has_kubernetes
from app.runtime.deployments.claim import TAKEN_UP
from app.runtime.deployments.contract import KUBERNETES
from app.runtime.jobs import supervisor
from app.runtime.lease import Row, Runner, is_supervised
from app.runtime.processes.leaked_processes import kill_leaked_processes
from app.runtime.processes.workdir import WorkDirectory, remove_unknown, run_ids
from app.runtime.sweep import MESSAGES_PER_SWEEP, in_use

log = get_logger(__name__)

R = TypeVar("R", Job, Deployment)


def reap_unsupervised(context: Context) -> None:
    """End the jobs and kill the servers on this host that have no live supervisor.

    The next supervisor of a deployment starts it again. A row that fails does not stop the others; the sweep sends a
    message for it. Raises SQLAlchemy's errors if the rows of this host cannot be read.
    """
    here = Runner.of_this_process(context.settings).host
    with session_scope(context.sessions) as session:
        rows = {
            model: session.scalars(select(model.id).where(model.host == here).order_by(model.id)).all()
            for model in (Job, Deployment)
        }
    for model, end in ((Job, supervisor.reap), (Deployment, _kill_server)):
        for run in rows[model]:
            try:
                end(context, run)
            except Exception:
                log.exception("runtime.reap_failed", run=str(run))


def _kill_server(context: Context, deployment_id: UUID) -> None:
    runner = Runner.of_this_process(context.settings)
    with session_scope(context.sessions) as session:
        row = _get_locked(session, Deployment, deployment_id)
        if row and row.host == runner.host and not is_supervised(session, row, runner):
            _kill_processes(context, deployment_id)


def remove_unowned_runs(context: Context) -> list[UUID]:
    """Kill the processes of runs that no row places on this host, and remove their directories; the ids of these runs.

    Such runs were skipped or purged while this host was away. A run whose row names this host is left to its
    supervisor. A run whose row names another host keeps its directory: it may be taken up here again. Runs of other
    hosts and installations are not touched. What is no run is removed too: only a job can have put it there. Raises
    SQLAlchemy's errors.
    """
    here = Runner.of_this_process(context.settings).host
    unowned = []
    for run in sorted(run_ids(context.settings)):
        with session_scope(context.sessions) as session:
            row = _locked(session, run)
            if row and row.host == here:
                continue
            is_killed = _kill_processes(context, run)
        unowned.append(run)
        if is_killed and row is None:
            WorkDirectory(context.settings, run).discard()
            log.warning("runtime.unowned_run_removed", run=str(run))
    for name in remove_unknown(context.settings):
        log.warning("runtime.unknown_entry_removed", name=name)
    return unowned


def _locked(session: Session, run: UUID) -> Row | None:
    return _get_locked(session, Job, run) or _get_locked(session, Deployment, run)


def _get_locked(session: Session, model: type[R], run: UUID) -> R | None:
    return session.get(model, run, with_for_update=True, options=without_documents(model))


def _kill_processes(context: Context, run: UUID) -> bool:
    """Whether all are gone. The caller has locked the row, or a claim could start processes that are killed too."""
    is_killed = kill_leaked_processes(run, within_s=context.settings.stop_grace_seconds)
    if not is_killed:
        log.error("runtime.processes_remain", run=str(run))
    return is_killed


def hosts_of(settings: Settings) -> list[str]:
    """The hosts that a worker in this process serves: its own, and the cluster, which all workers share.

    The cluster is included whichever runtime is set: deployments made there before need a supervisor too.
    """
    own = Runner.of_this_process(settings).host
    return [own, KUBERNETES] if has_kubernetes() else [own]


def messages_for_deployments(session: Session, hosts: list[str]) -> list[Message]:
    """Messages for the deployments on these hosts, and for those that wait for any host, a few hundred at most.

    A worker that starts publishes them before it takes any message: otherwise queued jobs would get their threads.
    """
    waiting = and_(
        Deployment.host.is_(None),
        Deployment.status.in_(TAKEN_UP),
        in_use(Deployment),
    )
    model = Deployment
    query = select(model.id, model.workspace_id, model.name, model.host)
    rows = session.execute(
        query.where(or_(model.host.in_(hosts), waiting)).order_by(model.id).limit(MESSAGES_PER_SWEEP)
    )
    return [deployment_message(row.id, row.workspace_id, row.name, row.host) for row in rows]


def messages_for_hosts(session: Session, hosts: list[str]) -> list[Message]:
    """Messages for every row that may have live processes on these hosts."""
    return [
        *_messages(session, Job, job_message, hosts),
        *_messages(session, Deployment, deployment_message, hosts),
    ]


def _messages(
    session: Session, model: type[Any], message: Callable[..., Message], hosts: list[str]
) -> list[Message]:
    query = select(model.id, model.workspace_id, model.name, model.host)
    rows = session.execute(query.where(model.host.in_(hosts)).order_by(model.id))
    return [message(row.id, row.workspace_id, row.name, row.host) for row in rows]
