"""Which hosts there are, what is on them, and whether their runtime worker is alive."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.config import Settings
from app.health.capacity import Slots, slots_by_host
from app.health.heartbeat import Process, last_heartbeats, silent_hosts
from app.models import Deployment, Job


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
    seen = {host: at for process, host, at in last_heartbeats(session) if process == Process.RUNTIME}
    jobs, deployments = _on_hosts(session, Job), _on_hosts(session, Deployment)
    silent, slots = silent_hosts(session, settings), slots_by_host(session, settings)
    none = Slots(0, 0)
    return [
        HostOverview(
            host=host,
            is_alive=host in seen and host not in silent,
            last_seen_at=datetime.fromtimestamp(seen[host], UTC) if host in seen else None,
            job_slots=slots.get(host, none).number,
            jobs_running=slots.get(host, none).taken,
            jobs=jobs[host],
            deployments=deployments[host],
        )
        for host in sorted({*seen, *jobs, *deployments})
    ]


def _on_hosts(session: Session, model: type[Job | Deployment]) -> Counter[str]:
    query = select(model.host, func.count()).where(model.host.is_not(None)).group_by(model.host)
    return Counter({str(host): number for host, number in session.execute(query)})
