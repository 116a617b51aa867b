"""Jobs and deployments that are not over, and the processes and hosts that work on all of it."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

from prometheus_client.core import Metric
from sqlalchemy import func, literal_column, select
from sqlalchemy.orm import Session

from app.config import Settings
from app.health.capacity import slots_by_host, waiting_jobs
from app.health.heartbeat import Process, last_heartbeats, rejected_messages
from app.health.metrics.families import counter, gauge
from app.lifecycle import JOB_TERMINAL, DeploymentStatus, JobStatus
from app.models import Deployment, Job

LIVE_JOBS = [status for status in JobStatus if status not in JOB_TERMINAL]
LIVE_DEPLOYMENTS = [status for status in DeploymentStatus if status is not DeploymentStatus.DELETED]


def runtime_metrics(session: Session, settings: Settings) -> Iterator[Metric]:
    """Seven statements, whose time grows with what runs or waits."""
    yield gauge(
        "workspaces_jobs",
        "Jobs that have not ended, by status.",
        _by_status(session, Job, LIVE_JOBS),
        labels=["status"],
    )
    yield gauge(
        "workspaces_deployments",
        "Deployments that are not deleted, by status.",
        _by_status(session, Deployment, LIVE_DEPLOYMENTS),
        labels=["status"],
    )
    yield gauge("workspaces_jobs_waiting", "Jobs that wait for a host.", {(): waiting_jobs(session)})
    slots = slots_by_host(session, settings)
    yield gauge(
        "workspaces_runtime_job_slots",
        "Jobs that may run on a host whose runtime worker is alive.",
        {(host,): one.number for host, one in slots.items()},
        labels=["host"],
    )
    yield gauge(
        "workspaces_runtime_jobs",
        "Jobs that take a slot of such a host.",
        {(host,): one.taken for host, one in slots.items()},
        labels=["host"],
    )
    yield from _processes(session)


def _processes(session: Session) -> Iterator[Metric]:
    seen = last_heartbeats(session)
    yield gauge(
        "workspaces_process_last_seen_timestamp_seconds",
        "When beat, a maintenance, cleanup or notify worker of a host was last alive, by the database's clock. "
        "Missing after an hour.",
        {(process, host): at for process, host, at in seen if process != Process.RUNTIME},
        labels=["process", "host"],
    )
    yield gauge(
        "workspaces_runtime_host_last_seen_timestamp_seconds",
        "When the runtime worker of a host was last alive, by the database's clock. Missing after an hour, unless jobs "
        "or deployments are on that host.",
        {(host,): at for process, host, at in seen if process == Process.RUNTIME},
        labels=["host"],
    )
    yield counter(
        "workspaces_messages_rejected",
        "Messages in the broker that workers have rejected, because no program of ours had sent them.",
        {(process,): number for process, number in rejected_messages(session).items()},
        labels=["process"],
    )


def _by_status(
    session: Session, model: type[Job | Deployment], live: Iterable[StrEnum]
) -> dict[tuple[str, ...], int]:
    named: list[Any] = [literal_column(f"'{status.value}'") for status in live]
    query = select(model.status, func.count()).where(model.status.in_(named)).group_by(model.status)
    found = {status.value: number for status, number in session.execute(query)}
    return {(status.value,): found.get(status.value, 0) for status in live}
