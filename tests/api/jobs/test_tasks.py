"""What executors tell of steps and tasks over HTTP."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from app.api.application import serve
from app.context import Context
from app.lifecycle import JOB_MOVES, JobStatus
from app.models import Job
from app.services import job_steps
from tests.factories import make_job, make_workspace

JOB = "/apis/jobs/v2/workspaces/ml-team/jobs/train"
TASKS = f"{JOB}/steps/first/tasks"
STEPS = [
    {"name": name, "executor": {"provider": "subprocess", "command": ["true"]}, "config": {"k": name}}
    for name in ("first", "second")
]


@pytest.fixture(autouse=True)
def job(session: Session) -> Job:
    job = make_job(
        session, make_workspace(session), "train", JobStatus.ACTIVE, platform_spec={"steps": STEPS}
    )
    job_steps.begin_step(job, "first")
    session.commit()
    return job


def test_a_step_is_shown_with_its_specification_and_appears_when_its_turn_has_come(
    client: FlaskClient, job: Job
) -> None:
    step = client.get(f"{JOB}/steps/first").json

    assert (step["id"], step["name"], step["job"], step["status"]) == (
        str(job_steps.step_id(job.attempt_id, "first")),
        "first",
        "train",
        "active",
    )
    assert (step["attempt_id"], step["parent"]) == (str(job.attempt_id), str(job.attempt_id))
    assert (step["config"], step["step_spec"]["name"]) == ({"k": "first"}, "first")
    assert (step["db_version"], step["created_by"], step["updated_by"]) == (1, "", "")
    assert client.get(f"{JOB}/steps/second").status_code == 404
    assert client.get(f"{JOB}/steps").json["data"] == [step]


def test_steps_and_tasks_say_who_has_reported_them_last_and_how_often_they_have_changed(
    client: FlaskClient, session: Session, job: Job
) -> None:
    job.created_by = "ann"
    # As an earlier release has stored it.
    old = {"db_version", "created_by", "updated_by"}
    job.steps = [{key: value for key, value in job.steps[0].items() if key not in old}]
    session.commit()
    as_bob = {"X-NMP-Principal-Id": "bob"}

    def told(entry: Any) -> tuple[str, str, int]:
        return entry["created_by"], entry["updated_by"], entry["db_version"]

    assert client.get(f"{JOB}/steps/first").json["db_version"] == 1
    for version in (2, 3):
        step = client.patch(f"{JOB}/steps/first/status", json={"status": "active"}, headers=as_bob).json
        assert told(step) == ("ann", "bob", version)
    for version in (1, 2):
        task = client.put(f"{TASKS}/worker-1", json={}, headers=as_bob).json
        assert told(task) == ("bob", "bob", version)
    assert told(client.get(f"{TASKS}/main").json)[2] == 1


@pytest.mark.parametrize("after", JobStatus)
@pytest.mark.parametrize("before", JobStatus)
def test_a_step_is_reported_along_the_published_moves_and_a_job_that_a_host_has_stays_as_it_is(
    client: FlaskClient, session: Session, job: Job, before: JobStatus, after: JobStatus
) -> None:
    job.host = "somewhere"
    job.steps = [{**job.steps[0], "status": before}]
    session.commit()
    is_allowed = after is before or after in JOB_MOVES[before]

    report = {"status": after, "status_details": {"epoch": 1}}
    response = client.patch(f"{JOB}/steps/first/status", json=report)

    session.refresh(job)
    assert response.status_code == (200 if is_allowed else 409)
    assert job.steps[0]["status"] == (after if is_allowed else before)
    assert job.steps[0]["status_details"] == ({"epoch": 1} if is_allowed else {})
    assert (job.status, job.is_reported) == (JobStatus.ACTIVE, False)


def test_a_task_is_made_and_changed_by_reports_and_its_details_are_those_of_the_job_too(
    client: FlaskClient, session: Session, job: Job
) -> None:
    job.status_details = {"kept": True}
    session.commit()

    made = client.put(f"{TASKS}/worker-1", json={"status_details": {"epoch": 1}})
    changed = client.put(f"{TASKS}/worker-1", json={"status": "error", "error_stack": "at line 7"})

    assert (made.status_code, made.json["status"], made.json["status_details"]) == (
        200,
        "pending",
        {"epoch": 1},
    )
    assert (changed.json["id"], changed.json["status"], changed.json["error_stack"]) == (
        made.json["id"],
        "error",
        "at line 7",
    )
    assert changed.json["status_details"] == {"epoch": 1}
    assert client.get(f"{TASKS}/worker-1").json == changed.json
    assert [task["name"] for task in client.get(TASKS).json["data"]] == ["main", "worker-1"]
    status = client.get(f"{JOB}/status").json
    assert status["status_details"] == {"kept": True, "epoch": 1}
    assert [(task["name"], task["status"]) for task in status["steps"][0]["tasks"]] == [
        ("main", "active"),
        ("worker-1", "error"),
    ]


def test_a_step_that_ends_settles_its_own_task_and_leaves_reported_ones_alone(
    client: FlaskClient, session: Session, job: Job
) -> None:
    client.put(f"{TASKS}/worker-1", json={"status": "active"})

    session.refresh(job)
    job_steps.settle_step(job, "first", JobStatus.COMPLETED)
    session.commit()

    assert [(task["name"], task["status"]) for task in client.get(TASKS).json["data"]] == [
        ("main", "completed"),
        ("worker-1", "active"),
    ]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/steps/nope", None),
        ("PATCH", "/steps/nope/status", {"status": "active"}),
        ("GET", "/steps/nope/tasks", None),
        ("GET", "/steps/first/tasks/nope", None),
        ("PUT", "/steps/nope/tasks/worker-1", {}),
    ],
)
def test_what_is_not_there_is_not_found(client: FlaskClient, method: str, path: str, body: Any) -> None:
    assert client.open(JOB + path, method=method, json=body).status_code == 404


def test_a_step_has_no_more_tasks_than_its_row_can_hold(
    client: FlaskClient, session: Session, job: Job
) -> None:
    main = job.steps[0]["tasks"][0]
    job.steps = [{**job.steps[0], "tasks": [main, *({**main, "name": f"t-{i}"} for i in range(999))]}]
    session.commit()

    assert client.put(f"{TASKS}/one-more", json={}).status_code == 409
    assert client.put(f"{TASKS}/t-7", json={"status": "active"}).status_code == 200


@pytest.fixture
def narrow(context: Context, app: Flask) -> int:
    """A scaled model: bodies may have 20 kB."""
    most = 20_000
    serve(app, replace(context, settings=context.settings.model_copy(update={"max_body_bytes": most})))
    return most


Report = Callable[[FlaskClient, int, str], Any]


def patch_details(client: FlaskClient, number: int, text: str) -> Any:
    return client.patch(f"{JOB}/status-details", json={f"key-{number}": text})


def put_task(client: FlaskClient, number: int, text: str) -> Any:
    return client.put(f"{TASKS}/worker-{number}", json={"status_details": {f"key-{number}": text}})


def put_task_error(client: FlaskClient, number: int, text: str) -> Any:
    return client.put(f"{TASKS}/worker-{number}", json={"error_details": {"text": text}})


@pytest.mark.parametrize(
    ("report", "what"),
    [
        (patch_details, "status details"),
        (put_task, "status details"),
        (put_task_error, "steps with their tasks"),
    ],
)
def test_reports_add_up_to_so_much_and_one_beyond_changes_nothing(
    client: FlaskClient, session: Session, job: Job, narrow: int, report: Report, what: str
) -> None:
    text = "x" * (narrow - 200)
    assert report(client, 0, text).status_code == 200, "the largest report is accepted"
    small = "y" * (narrow // 2)
    answers = [report(client, number, small) for number in range(1, 5)]

    refused = next(answer for answer in answers if answer.status_code != 200)
    assert refused.status_code == 413
    assert f"The {what} of job 'train' would have" in refused.json["detail"]
    assert "overwrite earlier reports by null" in refused.json["detail"]
    session.refresh(job)
    stored = [len(json.dumps(document)) for document in (job.status_details, job.steps)]
    assert stored[0] <= narrow * 1.1
    assert stored[1] <= 2 * narrow * 1.1


def test_what_was_reported_before_can_make_room(client: FlaskClient, narrow: int) -> None:
    assert patch_details(client, 0, "x" * (narrow - 200)).status_code == 200
    assert patch_details(client, 1, "x" * 1000).status_code == 413

    assert client.patch(f"{JOB}/status-details", json={"key-0": None}).status_code == 200
    assert patch_details(client, 1, "x" * 1000).status_code == 200


def test_a_step_that_reports_again_and_again_keeps_its_last_report_alone(
    client: FlaskClient, narrow: int
) -> None:
    for _ in range(4):
        report = {"status": "active", "status_details": {"text": "x" * (narrow - 200)}}
        assert client.patch(f"{JOB}/steps/first/status", json=report).status_code == 200
