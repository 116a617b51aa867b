"""Jobs that a client runs itself: it reports their steps, their status follows, and the runtime leaves them alone."""

from threading import Event
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from app.cleanup.engine import run_slice
from app.cleanup.requests import request_deletion
from app.context import Context
from app.db import session_scope
from app.health import capacity
from app.health.heartbeat import Process, note_alive
from app.lifecycle import JOB_MOVES, JOB_TERMINAL, JobStatus
from app.models import Job
from app.runtime.jobs import supervisor
from app.runtime.jobs.turns import messages_for_free_slots
from app.services import job_steps
from tests.factories import make_job, make_workspace, rows_of
from tests.support.actors import trusted
from tests.support.publisher import RecordingPublisher

JOB = "/apis/jobs/v2/workspaces/ml-team/jobs/train"
STEPS = [
    {"name": name, "executor": {"provider": "subprocess", "command": ["true"]}}
    for name in ("first", "second")
]


@pytest.fixture(autouse=True)
def job(session: Session) -> Job:
    job = make_job(
        session, make_workspace(session), "train", JobStatus.CREATED, platform_spec={"steps": STEPS}
    )
    session.commit()
    return job


def report(client: FlaskClient, status: JobStatus, step: str = "first", **details: Any) -> str:
    """What the status of the job is after a report that must be accepted."""
    answer = client.patch(f"{JOB}/steps/{step}/status", json={"status": status, **details})
    assert (answer.status_code, answer.json.get("status")) == (200, status), answer.text
    told: str = client.get(JOB).json["status"]
    return told


def deliver(context: Context, job: Job) -> str:
    """What a runtime worker does with the message for the job."""
    return supervisor.supervise(context, job.id, stopping=Event())


def test_a_job_follows_its_steps_to_its_end(client: FlaskClient) -> None:
    seen = [
        report(client, JobStatus.PENDING),
        report(client, JobStatus.ACTIVE),
        report(client, JobStatus.COMPLETED),
        report(client, JobStatus.PENDING, "second"),
        report(client, JobStatus.ACTIVE, "second"),
        report(client, JobStatus.COMPLETED, "second"),
    ]

    # A job that is active is not pending again while its second step is.
    assert seen == ["pending", "active", "active", "active", "active", "completed"]
    steps = client.get(f"{JOB}/status").json["steps"]
    assert [(step["name"], step["status"]) for step in steps] == [
        ("first", "completed"),
        ("second", "completed"),
    ]


def test_a_step_begins_when_the_one_before_it_is_reported_as_completed(client: FlaskClient) -> None:
    report(client, JobStatus.ACTIVE)
    assert client.get(f"{JOB}/steps/second").status_code == 404

    report(client, JobStatus.COMPLETED)

    assert client.get(f"{JOB}/steps/second").json["status"] == "created"
    assert [step["name"] for step in client.get(f"{JOB}/steps").json["data"]] == ["second"]


@pytest.mark.parametrize(("details", "told"), [({"code": 7}, {"code": 7}), (None, "reported as error")])
def test_a_step_that_fails_ends_the_job_with_its_reason(
    client: FlaskClient, details: dict[str, Any] | None, told: Any
) -> None:
    report(client, JobStatus.ACTIVE)

    assert report(client, JobStatus.ERROR, error_details=details) == "error"

    found = client.get(JOB).json["error_details"]
    assert found == told if details else told in found["message"]


def test_a_report_of_an_earlier_step_does_not_move_the_job(client: FlaskClient) -> None:
    report(client, JobStatus.ACTIVE)
    report(client, JobStatus.COMPLETED)
    report(client, JobStatus.ACTIVE, "second")

    assert report(client, JobStatus.COMPLETED, "first", status_details={"late": True}) == "active"


@pytest.mark.parametrize("after", sorted(JobStatus))
@pytest.mark.parametrize("before", sorted(set(JobStatus) - JOB_TERMINAL - {JobStatus.CANCELLING}))
def test_a_job_in_any_status_comes_to_the_end_of_its_last_step_and_follows_published_moves_otherwise(
    client: FlaskClient, session: Session, job: Job, before: JobStatus, after: JobStatus
) -> None:
    job.status = before
    job_steps.begin_step(job, "first")
    job_steps.begin_step(job, "second")
    came_from = next(status for status in JobStatus if status is after or after in JOB_MOVES[status])
    job.steps = [job.steps[0], {**job.steps[1], "status": came_from}]
    session.commit()

    told = report(client, after, "second")

    follows = after in JOB_TERMINAL or after in JOB_MOVES[before]
    assert told == (after if follows else before)


@pytest.mark.parametrize("before", sorted(JOB_TERMINAL))
def test_a_late_report_does_not_move_a_job_that_has_ended(
    client: FlaskClient, session: Session, job: Job, before: JobStatus
) -> None:
    job.status = before
    job_steps.begin_step(job, "first")
    job.steps = [{**job.steps[0], "status": JobStatus.ACTIVE}]
    session.commit()

    assert report(client, JobStatus.COMPLETED) == before


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.ACTIVE, JobStatus.PAUSED])
def test_the_runtime_leaves_a_reported_job_alone(
    client: FlaskClient,
    session: Session,
    context: Context,
    publisher: RecordingPublisher,
    job: Job,
    status: JobStatus,
) -> None:
    publisher.empty_queues.add("runtime.here")
    note_alive(session, Process.RUNTIME, ["here"], job_slots=1)
    other = make_job(session, make_workspace(session, "other"), "other", platform_spec={"steps": STEPS})
    session.commit()
    assert report(client, status) == status
    if status is JobStatus.PAUSED:
        assert client.post(f"{JOB}/resume").json["status"] == "resuming"
    before = client.get(JOB).json

    assert "a client runs it and reports its steps" in deliver(context, job)

    session.expire_all()
    assert [message.facts["job"] for message in messages_for_free_slots(session, context)] == [other.name]
    assert capacity.waiting_jobs(session) == 1
    assert "waiting_for" not in before["status_details"]
    assert client.get(JOB).json == before
    assert (job.host, job.is_reported) == (None, True)


def test_a_pause_waits_for_the_client_that_runs_the_job(
    client: FlaskClient, context: Context, job: Job
) -> None:
    report(client, JobStatus.ACTIVE)
    assert client.post(f"{JOB}/pause").json["status"] == "pausing"

    deliver(context, job)
    assert client.get(JOB).json["status"] == "pausing"
    assert report(client, JobStatus.PAUSED) == "paused"
    assert client.post(f"{JOB}/resume").json["status"] == "resuming"
    assert report(client, JobStatus.ACTIVE) == "active"


def test_a_cancelled_one_is_cancelled_at_once_and_a_rerun_is_for_the_runtime_again(
    client: FlaskClient, session: Session, job: Job
) -> None:
    report(client, JobStatus.ACTIVE)

    assert client.post(f"{JOB}/cancel").json["status"] == "cancelled"
    assert client.patch(f"{JOB}/steps/first/status", json={"status": "active"}).status_code == 409
    assert client.post(f"{JOB}/rerun").json["status"] == "created"

    session.refresh(job)
    assert (job.is_reported, job.steps) == (False, [])


def test_a_client_that_has_reported_a_cancellation_and_nothing_more_keeps_no_workspace(
    client: FlaskClient, context: Context, session: Session, job: Job
) -> None:
    assert report(client, JobStatus.CANCELLING) == "cancelling"
    with session_scope(context.sessions) as request:
        deletion = request_deletion(request, context, trusted("ann"), "ml-team").id

    run_slice(context, deletion, owner="test")

    assert rows_of(session, job.workspace_id) == {}


def test_nor_does_it_keep_the_job(client: FlaskClient, session: Session, job: Job) -> None:
    report(client, JobStatus.CANCELLING)

    assert client.post(f"{JOB}/cancel").json["status"] == "cancelled"

    session.refresh(job)
    assert job.steps[0]["status"] == "cancelled"
    assert client.delete(JOB).status_code == 204
    assert client.get(JOB).status_code == 404
