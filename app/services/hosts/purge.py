"""Purging a host that is gone for good: no worker will ever start there and confirm that no process is left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select, union
from sqlalchemy.orm import Session

from app.access import audit
from app.access.authorize import Actor
from app.errors import Conflict, NotFound, WrongState
from app.lease import holds
from app.lifecycle import DeploymentStatus
from app.logs import get_logger
from app.models import Deployment, Job
from app.models.audit import AuditEvent
from app.models.deployment import CLUSTER
from app.services.deployments import move
from app.services.hosts.rows import each_row, release
from app.services.jobs import fail_lost

log = get_logger(__name__)

_KEPT = (DeploymentStatus.ERROR, DeploymentStatus.DELETED)
"""Statuses that a deployment keeps when its host is purged; in all others it waits for another host."""


@dataclass(frozen=True)
class PurgedHost:
    """How many rows were on the purged host."""

    jobs: int
    deployments: int


def purge_host(session: Session, actor: Actor, host: str) -> PurgedHost:
    """Record that no process is left on `host`, because an operator says so.

    Jobs that had not ended become `error`. Deployments that were to be deleted become DELETED; the sweep sends
    messages for the others, and other hosts take them up. Raises WrongState while a runner there has a lease, Conflict
    for the cluster, which can be asked, and NotFound for a host without rows, because that name is mistyped.
    """
    if host == CLUSTER:
        raise Conflict(
            f"'{host}' is the cluster, which can be asked what is left there; delete the deployments instead"
        )
    jobs, deployments = _locked(session, Job, host), _locked(session, Deployment, host)
    if not jobs and not deployments:
        raise NotFound(f"no job or deployment is on host '{host}'; {_describe_hosts(session)}")
    for model in (Job, Deployment):
        if row := _supervised(session, model, host):
            raise WrongState(
                f"host '{host}' is alive: its runner {row.lease_owner} has '{row.name}' until "
                f"{row.lease_until:%H:%M:%S} UTC; stop the runtime worker there, and repeat this after that time"
            )
    for job in each_row(session, Job, jobs):
        fail_lost(session, job)
        _release(job)
    for deployment in each_row(session, Deployment, deployments):
        if deployment.status is DeploymentStatus.DELETING:
            move(session, deployment, DeploymentStatus.DELETED, f"host '{host}' was purged")
        elif deployment.status not in _KEPT:
            move(session, deployment, DeploymentStatus.PENDING, f"host '{host}' was purged")
        deployment.address = None
        _release(deployment)
    audit.record(
        session,
        actor,
        AuditEvent.HOST_PURGED,
        subject=host,
        jobs=len(jobs),
        deployments=len(deployments),
    )
    log.warning("runtime.host_purged", host=host, jobs=len(jobs), deployments=len(deployments))
    return PurgedHost(len(jobs), len(deployments))


def _describe_hosts(session: Session) -> str:
    """The hosts of jobs and deployments, as the second half of a sentence."""
    taken = union(*(select(model.host).where(model.host.is_not(None)) for model in (Job, Deployment)))
    hosts = ", ".join(f"'{host}'" for host in sorted(map(str, session.scalars(taken))))
    return f"some are on {hosts}" if hosts else "none is on any"


def _locked(session: Session, model: type[Any], host: str) -> Sequence[UUID]:
    query = select(model.id).where(model.host == host).order_by(model.id).with_for_update()
    return session.scalars(query).all()


def _supervised(session: Session, model: type[Any], host: str) -> Any:
    query = select(model.lease_owner, model.name, model.lease_until)
    return session.execute(query.where(model.host == host, holds(model)).limit(1)).one_or_none()


def _release(row: Job | Deployment) -> None:
    release(row)
    # A runner that wakes up there all the same holds an outdated fencing token and cannot write.
    row.fence += 1
