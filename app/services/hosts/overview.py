"""Which hosts there are, what is on them, and whether their runtime worker is alive."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Float, Select, bindparam, case, false, func, or_, select, true, union_all
from sqlalchemy.orm import Session

from app.config import Settings
from app.health.capacity import takes_slot
from app.health.heartbeat import Process, silent_after_s, was_alive_within
from app.models import Deployment, Heartbeat, Job


@dataclass(frozen=True)
class HostOverview:
    """A host that a job or a deployment is on, or that was alive within an hour."""

    host: str
    is_alive: bool
    last_seen_at: datetime | None
    job_slots: int
    jobs_running: int
    jobs: int
    deployments: int


def hosts(session: Session, settings: Settings) -> list[HostOverview]:
    """Every host, by name. There are as many rows to count as hosts can run."""
    found = session.connection().execute(_hosts(), {"silent_after_s": silent_after_s(settings)})
    return sorted((HostOverview(**row._mapping) for row in found), key=lambda one: one.host)


@cache
def _hosts() -> Select[*tuple[Any, ...]]:
    """One statement, made once: it takes longer to be made than to be executed."""
    on_hosts, seen = _on_hosts().subquery("on_hosts"), _seen().subquery("seen")
    takes_up_jobs = seen.c.is_alive & (seen.c.job_slots > 0)
    return (
        select(
            func.coalesce(on_hosts.c.host, seen.c.host).label("host"),
            func.coalesce(seen.c.is_alive, false()).label("is_alive"),
            seen.c.heartbeat_at.label("last_seen_at"),
            case((takes_up_jobs, seen.c.job_slots), else_=0).label("job_slots"),
            case((takes_up_jobs, func.coalesce(on_hosts.c.jobs_running, 0)), else_=0).label("jobs_running"),
            func.coalesce(on_hosts.c.jobs, 0).label("jobs"),
            func.coalesce(on_hosts.c.deployments, 0).label("deployments"),
        )
        .select_from(on_hosts.join(seen, seen.c.host == on_hosts.c.host, full=True))
        .where(or_(on_hosts.c.host.is_not(None), seen.c.is_recent))
    )


def _on_hosts() -> Select[*tuple[Any, ...]]:
    """How much is on each host."""
    jobs = select(Job.host, true().label("is_job"), takes_slot().label("takes_slot"))
    deployments = select(Deployment.host, false().label("is_job"), false().label("takes_slot"))
    each = union_all(
        jobs.where(Job.host.is_not(None)), deployments.where(Deployment.host.is_not(None))
    ).subquery("each")
    return select(
        each.c.host,
        func.count().filter(each.c.takes_slot).label("jobs_running"),
        func.count().filter(each.c.is_job).label("jobs"),
        func.count().filter(~each.c.is_job).label("deployments"),
    ).group_by(each.c.host)


def _seen() -> Select[*tuple[Any, ...]]:
    """Each host with a runtime worker that was ever alive."""
    is_alive = was_alive_within(bindparam("silent_after_s", type_=Float))
    return select(
        Heartbeat.host,
        Heartbeat.heartbeat_at,
        Heartbeat.job_slots,
        is_alive.label("is_alive"),
        was_alive_within().label("is_recent"),
    ).where(Heartbeat.process == Process.RUNTIME)
