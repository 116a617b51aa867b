"""Giving up a host that is gone for good: no worker will ever start there and see that nothing is left."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, union
from sqlalchemy.orm import Session

from app.lifecycle import DeploymentStatus
from app.logs import get_logger
from app.models import Deployment, Job
from app.runtime.deployments.contract import KUBERNETES
from app.runtime.jobs.supervisor import fail_lost
from app.runtime.lease import RELEASED, Row
from app.services.deployments import move

log = get_logger(__name__)

_KEPT = (DeploymentStatus.ERROR, DeploymentStatus.DELETED)
"""What a deployment stays that has no host any more; all others wait for another one."""


class CannotPurge(Exception):
    """Of this host nothing can be given up; the message says why."""


@dataclass(frozen=True)
class PurgedHost:
    """How many rows were on a host, and are so no more."""

    jobs: int
    deployments: int


def purge_host(session: Session, host: str, *, now: datetime) -> PurgedHost:
    """Take that nothing runs on `host`, on the word of an operator.

    Its jobs become an `error` if they had not ended, deployments that were to be deleted DELETED; other hosts take up
    the rest, for which the sweep rings. Raises CannotPurge while a runner there has a lease, for the cluster, which
    can be asked, and where nothing is: that name is mistyped. Does not commit.
    """
    if host == KUBERNETES:
        raise CannotPurge(
            f"'{host}' is the cluster, which can be asked what is left: no operator can know better"
        )
    jobs, deployments = _locked(session, Job, host), _locked(session, Deployment, host)
    if not jobs and not deployments:
        raise CannotPurge(f"no job or deployment is on host '{host}'; {_describe_hosts(session)}")
    for row in (*jobs, *deployments):
        if row.lease_owner and row.lease_until and row.lease_until > now:
            raise CannotPurge(
                f"host '{host}' is alive: its runner {row.lease_owner} has '{row.name}' until "
                f"{row.lease_until:%H:%M:%S} UTC; stop the runtime worker there, and repeat this when that time is over"
            )
    for job in jobs:
        fail_lost(session, job)
        _release(job)
    for deployment in deployments:
        if deployment.status is DeploymentStatus.DELETING:
            move(session, deployment, DeploymentStatus.DELETED, f"host '{host}' was given up")
        elif deployment.status not in _KEPT:
            move(session, deployment, DeploymentStatus.PENDING, f"host '{host}' was given up")
        deployment.address = None
        _release(deployment)
    log.warning("runtime.host_forgotten", host=host, jobs=len(jobs), deployments=len(deployments))
    return PurgedHost(len(jobs), len(deployments))


def _describe_hosts(session: Session) -> str:
    """Where jobs and deployments are, as the rest of a sentence."""
    taken = union(*(select(model.host).where(model.host.is_not(None)) for model in (Job, Deployment)))
    hosts = ", ".join(f"'{host}'" for host in sorted(map(str, session.scalars(taken))))
    return f"some are on {hosts}" if hosts else "none is on any"


def _locked(session: Session, model: type[Any], host: str) -> list[Any]:
    query = select(model).where(model.host == host).order_by(model.id).with_for_update()
    return list(session.scalars(query.execution_options(populate_existing=True)))


def _release(row: Row) -> None:
    for name, value in RELEASED.items():
        setattr(row, name, value)
    # Should a runner wake up there all the same, it must find that it has nothing to write any more.
    row.fence += 1
