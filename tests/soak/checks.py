"""What was lost, and what is left: of a product on which no fault is inflicted any more."""

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.lifecycle import JOB_TERMINAL, DeletionState, DeploymentStatus, JobStatus
from app.models import Deletion, DeletionEvent, Deployment, Job, Workspace
from tests.factories import rows_of
from tests.soak.customers import WORKSPACES, file_url
from tests.soak.ledger import Run, Tenant
from tests.soak.plan import Phase
from tests.soak.scene import Scene
from tests.support.processes import living

ENDED_WITHIN_S = 60
"""For so long after a fault something may still end because of it: it had begun under it."""


def unsettled(session: Session, scene: Scene) -> list[str]:
    """What is still on its way: deletions, short jobs, servers."""
    session.rollback()
    unfinished = select(Deletion).where(Deletion.state.in_((DeletionState.DELETING, DeletionState.FAILED)))
    found = [f"{one.workspace_name}: {one.state} {one.reason or ''}" for one in session.scalars(unfinished)]
    for tenant in scene.ledger.living():
        jobs, servers = _jobs(session, tenant), _servers(session, tenant)
        for run in tenant.jobs:
            is_ending = not run.is_long or run.is_cancelled
            if is_ending and run.name in jobs and jobs[run.name].status not in JOB_TERMINAL:
                found.append(f"{tenant.name}: {run.name} is {jobs[run.name].status}")
        for name, server in servers.items():
            if server.status != DeploymentStatus.READY:
                found.append(f"{tenant.name}: {name} is {server.status}: {server.status_message}")
    return found


def lost(session: Session, scene: Scene, phases: list[Phase], marks: Path) -> Iterator[str]:
    """What was accepted and is not as it was accepted, without a fault to blame."""
    session.rollback()
    client = scene.stack.client
    for tenant in scene.ledger.living():
        workspace = session.get(Workspace, UUID(tenant.id))
        if workspace is None or workspace.state != "ACTIVE":
            yield f"workspace {tenant.name}"
            continue
        for path, content in tenant.files.items():
            if (answer := client.get(file_url(tenant, path))).content != content:
                yield f"{tenant.name}: file {path}: {answer.status_code}"
        for name, data in tenant.entities.items():
            answer = client.get(f"{WORKSPACES}/{tenant.name}/entities/sample/{name}")
            if not answer.is_success or answer.json()["data"] != data:
                yield f"{tenant.name}: entity {name}: {answer.status_code}"
        yield from _lost_jobs(session, scene, tenant, phases, marks)
        yield from _lost_servers(session, tenant)


def _lost_jobs(
    session: Session, scene: Scene, tenant: Tenant, phases: list[Phase], marks: Path
) -> Iterator[str]:
    jobs = _jobs(session, tenant)
    for run in tenant.jobs:
        if not (job := jobs.get(run.name)):
            yield f"{tenant.name}: job {run.name}"
            continue
        scene.ledger.counts[f"jobs found {job.status}"] += 1
        times = (marks / run.word).read_text().count(run.word) if (marks / run.word).exists() else 0
        expected = (
            JobStatus.CANCELLED
            if run.is_cancelled
            else JobStatus.ACTIVE
            if run.is_long
            else JobStatus.COMPLETED
        )
        if job.status == JobStatus.ERROR:
            if not _is_to_blame(phases, job):
                yield f"{tenant.name}: job {run.name}: {job.status} {job.status_details} {job.error_details}"
        elif job.status != expected:
            yield f"{tenant.name}: job {run.name} is {job.status} instead of {expected}"
        elif job.status == JobStatus.COMPLETED:
            path = f"/apis/jobs/v2/workspaces/{tenant.name}/jobs/{run.name}/results/word/download"
            if (answer := scene.stack.client.get(path)).text.strip() != run.word:
                yield f"{tenant.name}: result of {run.name}: {answer.status_code}"
        elif job.status == JobStatus.ACTIVE and not living(run.word):
            yield f"{tenant.name}: the processes of {run.name}"
        if times > 1 or (times == 0 and job.status in (JobStatus.COMPLETED, JobStatus.ACTIVE)):
            yield f"{tenant.name}: job {run.name}, {job.status}, was started {times} times"


def _is_to_blame(phases: list[Phase], job: Job) -> bool:
    """Whether a fault that ends jobs was inflicted on this one before it ended."""
    created, ended = job.created_at.timestamp(), job.updated_at.timestamp()
    return any(
        phase.ends_runs and created <= phase.ended and phase.began <= ended <= phase.ended + ENDED_WITHIN_S
        for phase in phases
    )


def _lost_servers(session: Session, tenant: Tenant) -> Iterator[str]:
    servers = _servers(session, tenant)
    for run in tenant.servers:
        server = servers.get(run.name)
        try:
            answers = bool(server and server.address and httpx.get(server.address).is_success)
        except httpx.TransportError:
            answers = False
        if not answers:
            yield f"{tenant.name}: server {run.name}: {server and (server.status, server.status_message)}"


def _jobs(session: Session, tenant: Tenant) -> dict[str, Job]:
    return {job.name: job for job in session.scalars(select(Job).where(Job.workspace_id == UUID(tenant.id)))}


def _servers(session: Session, tenant: Tenant) -> dict[str, Deployment]:
    query = select(Deployment).where(Deployment.workspace_id == UUID(tenant.id))
    return {server.name: server for server in session.scalars(query)}


def left(session: Session, scene: Scene) -> Iterator[str]:
    """What is left once all workspaces are deleted: rows, files, processes, directories of runs."""
    session.rollback()
    doomed = [tenant for tenant in scene.ledger.tenants if tenant.deletion]
    paths = scene.store.paths()
    yield from (f"directory of a run: {path}" for path in (scene.stack.data_dir / "runs").glob("*/*"))
    for tenant in doomed:
        deletion = session.get(Deletion, UUID(tenant.deletion))
        if deletion is None or deletion.state != DeletionState.DONE:
            yield f"{tenant.name}: its deletion is {deletion and deletion.state}"
            continue
        if rows := rows_of(session, UUID(tenant.id)):
            yield f"{tenant.name}: rows {rows}"
        yield from (f"{tenant.name}: {path}" for path in paths if tenant.id in path)
        runs: list[Run] = [*tenant.jobs, *tenant.servers]
        yield from (f"{tenant.name}: processes of {run.name}" for run in runs if living(run.word))


def failed(session: Session) -> list[DeletionEvent]:
    """Each time that a deletion was FAILED."""
    session.rollback()
    return list(session.scalars(select(DeletionEvent).where(DeletionEvent.event == "failed")))


def unexplained(failures: list[DeletionEvent], phases: list[Phase]) -> Iterator[str]:
    """The reasons of those that fit no fault which was inflicted then."""
    for event in failures:
        at, reason = event.at.timestamp(), str(event.detail["reason"])
        if not any(
            phase.reasons
            and phase.began <= at <= phase.ended + ENDED_WITHIN_S
            and re.search(phase.reasons, reason)
            for phase in phases
        ):
            yield f"{event.deletion_id} was FAILED at {event.at}: {reason}"
