"""Purging a host that is gone for good, so that its jobs and deployments can be deleted."""

import json
from datetime import timedelta
from threading import Event
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy.orm import Session

from app import clock
from app.cli.runtime import runtime
from app.context import Context
from app.lifecycle import JOB_TERMINAL, DeploymentStatus, JobStatus
from app.models import Deployment, Job
from app.runtime.jobs import supervisor
from app.runtime.sweep import unsupervised_deployments, unsupervised_jobs
from tests.factories import make_deployment, make_job, make_workspace
from tests.support.aging import age

LAPSED: dict[str, Any] = {"host": "gone", "lease_owner": "7@1.00", "fence": 3, "lease_until": clock.now()}
LOST: dict[str, Any] = {**LAPSED, "lease_owner": None, "lease_until": None}
MODELS = [Job, Deployment]


def put(session: Session, model: type[Any], status: Any, lease: dict[str, Any], **values: Any) -> Any:
    make = make_job if model is Job else make_deployment
    row = make(session, make_workspace(session), status=status)
    for name, value in {**lease, **values}.items():
        setattr(row, name, value)
    session.commit()
    return row


def purge(context: Context, host: str = "gone") -> Result:
    return CliRunner().invoke(runtime, ["purge", "--direct", "-o", "json", host], obj=context)


def gone_with(purged: Result) -> tuple[int, int]:
    """How many jobs and deployments it says that it has given up."""
    answer = json.loads(purged.output[purged.output.index("{\n") :])
    assert (purged.exit_code, answer["host"]) == (0, "gone")
    return answer["jobs"], answer["deployments"]


@pytest.mark.parametrize("lease", [LAPSED, LOST], ids=["lapsed", "marked lost"])
@pytest.mark.parametrize("before", JobStatus)
def test_a_job_of_a_purged_host_has_ended(
    session: Session, context: Context, before: JobStatus, lease: dict[str, Any]
) -> None:
    job = put(session, Job, before, lease)

    assert gone_with(purge(context)) == (1, 0)

    session.refresh(job)
    assert (job.host, job.lease_owner, job.lease_until, job.fence) == (None, None, None, 4)
    if before in JOB_TERMINAL:
        assert job.status is before
    else:
        assert job.status is JobStatus.ERROR
        assert job.error_details == {"message": f"runner lost: the job was {before} on host 'gone'"}


@pytest.mark.parametrize("lease", [LAPSED, LOST], ids=["lapsed", "marked lost"])
@pytest.mark.parametrize("before", DeploymentStatus)
def test_a_deployment_of_a_purged_host_waits_for_another_or_is_deleted(
    session: Session, context: Context, before: DeploymentStatus, lease: dict[str, Any]
) -> None:
    row = put(session, Deployment, before, lease, address="http://127.0.0.1:1")

    assert gone_with(purge(context)) == (0, 1)

    session.refresh(row)
    assert (row.host, row.lease_owner, row.lease_until, row.fence, row.address) == (None, None, None, 4, None)
    if before in (DeploymentStatus.DELETING, DeploymentStatus.DELETED):
        after = DeploymentStatus.DELETED
    else:
        after = before if before is DeploymentStatus.ERROR else DeploymentStatus.PENDING
    assert row.status is after
    age(session, row, 3600)
    messages = unsupervised_jobs(session, requeue_s=1) + unsupervised_deployments(session, requeue_s=1)
    assert [message.queue for message in messages] == (
        ["runtime"] if after is DeploymentStatus.PENDING else []
    )


def test_a_job_that_was_to_be_deleted_can_be_removed_then(session: Session, context: Context) -> None:
    job = put(session, Job, JobStatus.ERROR, LOST, delete_requested_at=clock.now())
    assert supervisor.supervise(context, job.id, stopping=Event()).endswith("supervised on host 'gone'")

    assert purge(context).exit_code == 0

    assert supervisor.supervise(context, job.id, stopping=Event()).endswith("removed, as requested")


@pytest.mark.parametrize("model", MODELS)
def test_a_host_is_not_purged_while_a_runner_has_a_lease_there(
    session: Session, context: Context, model: type[Any]
) -> None:
    status = JobStatus.ACTIVE if model is Job else DeploymentStatus.READY
    leased = put(session, model, status, {**LAPSED, "lease_until": clock.now() + timedelta(minutes=1)})
    lost = make_job(session, make_workspace(session, "beside"), status=JobStatus.ACTIVE, **LOST)
    session.commit()

    result = purge(context)

    assert result.exit_code == 1
    assert "Error: host 'gone' is alive: its runner 7@1.00 has " in result.output
    for row in (leased, lost):
        session.refresh(row)
        assert (row.host, row.fence) == ("gone", 3)
    assert leased.status is status


def test_rows_of_other_hosts_and_of_the_cluster_are_left_alone(session: Session, context: Context) -> None:
    job = put(session, Job, JobStatus.ACTIVE, {**LAPSED, "host": "kubernetes"})
    other = make_deployment(session, make_workspace(session, "beside"), status=DeploymentStatus.READY)
    other.host = "other"
    session.commit()

    mistyped, cluster = purge(context), purge(context, "kubernetes")

    assert (mistyped.exit_code, cluster.exit_code) == (4, 1)
    assert mistyped.output == (
        "Error: no job or deployment is on host 'gone'; some are on 'kubernetes', 'other'\n"
    )
    assert "is the cluster" in cluster.output
    session.refresh(job)
    assert (job.status, job.host, job.fence) == (JobStatus.ACTIVE, "kubernetes", 3)
    session.refresh(other)
    assert (other.status, other.host) == (DeploymentStatus.READY, "other")


def test_where_nothing_runs_there_is_no_host_to_purge(context: Context) -> None:
    assert purge(context).output == "Error: no job or deployment is on host 'gone'; none is on any\n"
