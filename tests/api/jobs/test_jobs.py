"""Jobs over HTTP: what is accepted, what is shown, and what is left when one goes."""

import re
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app import clock, create_app
from app.config.profiles import ExecutionProfile
from app.context import Context
from app.health.heartbeat import Process, note_alive
from app.lifecycle import JOB_TERMINAL, JobStatus, WorkspaceState
from app.models import Fileset, Job, Workspace
from app.services.job_removal import remove_ended
from tests.factories import make_fileset, make_job, make_project, make_workspace
from tests.support.hasty_store import HastyStore
from tests.support.publisher import RecordingPublisher

JOBS = "/apis/jobs/v2/workspaces/ml-team/jobs"
STEP = {"name": "only", "executor": {"provider": "subprocess", "command": ["true"]}}


@pytest.fixture(autouse=True)
def workspace(session: Session) -> Workspace:
    workspace = make_workspace(session, "ml-team")
    session.commit()
    return workspace


@pytest.fixture
def free_slot(session: Session) -> None:
    """A runtime worker that may take up a job: none is told that it waits."""
    note_alive(session, Process.RUNTIME, ["here"], job_slots=1)
    session.commit()


def a_job(**body: Any) -> dict[str, Any]:
    return {
        "name": "train",
        "source": "tests",
        "spec": {"a": None},
        "platform_spec": {"steps": [STEP]},
        **body,
    }


def create(client: FlaskClient, **body: Any) -> Any:
    response = client.post(JOBS, json=a_job(**body))
    assert response.status_code == 201, response.text
    return response.json


def with_step(**changes: Any) -> dict[str, Any]:
    return a_job(platform_spec={"steps": [{**STEP, **changes}]})


def put(session: Session, workspace: Workspace, status: JobStatus, name: str = "train", **values: Any) -> Job:
    job = make_job(session, workspace, name, status, **values)
    session.commit()
    return job


def count(session: Session, model: type[Job | Fileset]) -> int:
    session.rollback()
    return session.scalar(select(func.count()).select_from(model)) or 0


@pytest.mark.usefixtures("free_slot")
def test_a_new_job_is_shown_with_every_key_of_the_contract(client: FlaskClient) -> None:
    shown = create(client)

    assert shown == client.get(f"{JOBS}/train").json
    assert {
        key: shown[key] for key in shown if key not in ("id", "attempt_id", "created_at", "updated_at")
    } == {
        "name": "train",
        "workspace": "ml-team",
        "project": None,
        "description": None,
        "source": "tests",
        "spec": {"a": None},
        "platform_spec": {
            "steps": [
                {
                    "name": "only",
                    "executor": {"provider": "subprocess", "profile": "default", "command": ["true"]},
                    "environment": [],
                    "config": {},
                    "lifecycle": {"staleness_timeout_seconds": 0},
                }
            ]
        },
        "fileset": "job-fileset-train",
        "status": "created",
        "status_details": {},
        "error_details": None,
        "ownership": None,
        "custom_fields": None,
        "output_location": None,
    }
    assert shown["created_at"].endswith("Z")


def test_a_new_job_comes_with_its_fileset_and_notifies_the_runtime(
    client: FlaskClient, session: Session, publisher: RecordingPublisher
) -> None:
    shown = create(client)

    assert session.scalars(select(Fileset.name)).all() == ["job-fileset-train"]
    assert [(message.task, message.facts["job_id"]) for message in publisher.published] == [
        ("workspace.job.run", shown["id"])
    ]


@pytest.mark.parametrize("source", ["Some Source/2 with a long name", "42", "", "a--b-", "Ärger"])
def test_a_job_without_a_name_gets_a_valid_one_made_from_its_source(client: FlaskClient, source: str) -> None:
    name = create(client, name=None, source=source)["name"]

    assert re.fullmatch(r"[a-z](?!.*--)[a-z0-9-]*-[a-z0-9]{8}", name)
    assert client.get(f"{JOBS}/{name}").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        a_job(name="Bad Name"),
        a_job(name="train\n"),
        a_job(platform_spec={"steps": []}),
        a_job(platform_spec={"steps": [STEP, STEP]}),
        a_job(unknown=1),
        with_step(name="-"),
        with_step(executor={"provider": "abacus"}),
        with_step(executor={"provider": "subprocess", "command": []}),
        with_step(environment=[{"name": "A=B", "value": "1"}]),
        with_step(environment=[{"name": "A"}]),
        with_step(environment=[{"name": "A", "value": "1"}, {"name": "A", "value": "1"}]),
        with_step(environment=[{"name": "A", "value": "1", "from_secret": {"name": "s"}}]),
        with_step(environment={"A": "1"}),
        with_step(unknown=1),
        a_job(platform_spec={"steps": [STEP], "secrets": [{"name": "s", "value": "hidden"}]}),
    ],
)
def test_a_malformed_job_is_refused_with_the_list_of_what_is_wrong(client: FlaskClient, body: Any) -> None:
    response = client.post(JOBS, json=body)

    assert response.status_code == 422
    assert response.json["detail"][0]["loc"][0] == "body"


@pytest.mark.parametrize(
    "body",
    [
        a_job(certainly_unknown=None),
        a_job(output_location=None),
        with_step(environment=None, certainly_unknown=None),
        with_step(environment={}),
        a_job(platform_spec={"steps": [STEP], "secrets": None}),
        a_job(platform_spec={"steps": [STEP], "secrets": []}),
    ],
)
def test_what_newer_clients_send_without_a_value_is_as_if_not_there(client: FlaskClient, body: Any) -> None:
    response = client.post(JOBS, json=body)

    assert response.status_code == 201, response.text
    assert response.json["platform_spec"].keys() == {"steps"}
    assert response.json["platform_spec"]["steps"][0]["environment"] == []


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (
            with_step(executor={"provider": "cpu", "profile": "x", "container": {}}),
            "The execution profile 'cpu/x' specified in step 'only' does not exist.",
        ),
        (
            with_step(executor={"provider": "gpu", "container": {"command": ["true"]}}),
            "The execution profile 'gpu/default' specified in step 'only' does not exist.",
        ),
        (
            with_step(executor={"provider": "cpu", "container": {"image": "any"}}),
            "Step 'only' starts nothing: give its container an entrypoint or a command.",
        ),
        (
            with_step(executor={"provider": "subprocess", "command": [""]}),
            "Step 'only' starts nothing: the first part of its command is empty.",
        ),
        (
            with_step(executor={"provider": "cpu", "container": {"entrypoint": ["", "x"]}}),
            "Step 'only' starts nothing: the first part of its command is empty.",
        ),
        (
            a_job(project="nope"),
            "Project 'nope' does not exist in workspace 'ml-team'. Please create the project first.",
        ),
    ],
)
def test_a_job_that_refers_to_what_does_not_exist_leaves_nothing_behind(
    client: FlaskClient, session: Session, publisher: RecordingPublisher, body: Any, detail: str
) -> None:
    response = client.post(JOBS, json=body)

    assert (response.status_code, response.json) == (422, {"detail": detail})
    assert (count(session, Job), count(session, Fileset), publisher.published) == (0, 0, [])


def test_a_job_with_values_of_secrets_is_refused_without_repeating_them(client: FlaskClient) -> None:
    spec = {"steps": [STEP], "secrets": [{"name": "s", "value": "hunter2"}]}

    refused = client.post(JOBS, json=a_job(platform_spec=spec))

    assert refused.status_code == 422
    assert "hunter2" not in refused.text
    assert "create each secret by POST /apis/secrets/v2/workspaces" in refused.json["detail"][0]["msg"]


def test_a_job_whose_fileset_name_is_taken_leaves_nothing_behind(
    client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    make_fileset(session, workspace, "job-fileset-train")
    session.commit()

    response = client.post(JOBS, json=a_job())

    assert response.status_code == 409
    assert (count(session, Job), count(session, Fileset)) == (0, 1)


def test_a_second_job_of_the_same_name_is_refused(client: FlaskClient) -> None:
    create(client)

    response = client.post(JOBS, json=a_job())

    assert response.json == {
        "detail": "Job 'train' already exists in workspace 'ml-team'. "
        "Choose a different job name or delete the existing job before creating a new one."
    }
    assert (response.status_code, response.headers["x-should-retry"]) == (409, "false")


def test_every_offered_execution_profile_can_be_used(client: FlaskClient) -> None:
    profiles = client.get("/apis/jobs/v2/execution-profiles").json

    assert profiles
    for profile in profiles:
        executor = {key: profile[key] for key in ("provider", "profile")}
        executor |= (
            {"command": ["true"]}
            if profile["provider"] == "subprocess"
            else {"container": {"command": ["true"]}}
        )
        response = client.post(JOBS, json={**with_step(executor=executor), "name": None})
        assert response.status_code == 201, response.text


def test_a_job_may_be_part_of_a_project(client: FlaskClient, session: Session, workspace: Workspace) -> None:
    make_project(session, workspace, "alpha")
    session.commit()

    assert create(client, project="alpha")["project"] == "alpha"


@pytest.mark.parametrize("query", ['filter={"status":["created","active"]}', "filter[status]=created,active"])
def test_a_list_of_statuses_means_any_of_them(
    client: FlaskClient, session: Session, workspace: Workspace, query: str
) -> None:
    for status in (JobStatus.CREATED, JobStatus.ACTIVE, JobStatus.ERROR):
        put(session, workspace, status, f"job-{status}")

    page = client.get(f"{JOBS}?{query}&page_size=1&sort=created_at").json

    assert [job["name"] for job in page["data"]] == ["job-created"]
    assert page["pagination"]["total_results"] == 2


def test_lists_leave_out_null_fields_of_jobs_but_not_those_inside_of_a_spec(client: FlaskClient) -> None:
    create(client)

    [job] = client.get(JOBS).json["data"]

    assert None not in job.values()
    assert job["spec"] == {"a": None}


def test_a_dash_lists_the_jobs_of_all_active_workspaces(
    client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    put(session, workspace, JobStatus.CREATED, "here")
    put(session, make_workspace(session, "other"), JobStatus.CREATED, "there")
    put(session, make_workspace(session, "going", state=WorkspaceState.DELETING), JobStatus.CREATED, "gone")

    page = client.get("/apis/jobs/v2/workspaces/-/jobs?sort=name").json

    assert [(job["workspace"], job["name"]) for job in page["data"]] == [
        ("ml-team", "here"),
        ("other", "there"),
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("GET", "/train"),
        ("DELETE", "/train"),
        ("POST", "/train/cancel"),
        ("POST", "/train/pause"),
        ("POST", "/train/resume"),
        ("GET", "/train/status"),
        ("PATCH", "/train/status-details"),
        ("GET", "/train/steps"),
        ("GET", "/train/logs"),
        ("GET", "/train/results"),
        ("POST", "/train/rerun"),
    ],
)
def test_jobs_of_a_workspace_that_is_being_deleted_cannot_be_reached(
    client: FlaskClient, session: Session, workspace: Workspace, method: str, path: str
) -> None:
    job = put(session, workspace, JobStatus.PENDING)
    workspace.state = WorkspaceState.DELETING
    session.commit()

    body = {} if path == "/train/status-details" else a_job(name="new")
    response = client.open(JOBS + path, method=method, json=None if method == "GET" else body)

    assert (response.status_code, response.json) == (404, {"detail": "Workspace 'ml-team' not found"})
    session.refresh(job)
    assert job.status is JobStatus.PENDING


@pytest.mark.parametrize("path", ["", "/status", "/logs", "/results"])
def test_a_missing_job_is_not_found(client: FlaskClient, path: str) -> None:
    response = client.get(f"{JOBS}/nope{path}")

    assert (response.status_code, response.json) == (
        404,
        {"detail": "Job 'nope' not found in workspace 'ml-team'."},
    )


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("cancel", JobStatus.CREATED, JobStatus.CANCELLING),
        ("cancel", JobStatus.PENDING, JobStatus.CANCELLING),
        ("cancel", JobStatus.PAUSING, JobStatus.CANCELLING),
        ("cancel", JobStatus.COMPLETED, JobStatus.COMPLETED),
        ("pause", JobStatus.ACTIVE, JobStatus.PAUSING),
        ("resume", JobStatus.PAUSED, JobStatus.RESUMING),
        ("resume", JobStatus.ERROR, JobStatus.ERROR),
    ],
)
def test_cancel_pause_and_resume_answer_the_job_as_it_now_is(
    client: FlaskClient,
    session: Session,
    workspace: Workspace,
    action: str,
    before: JobStatus,
    after: JobStatus,
) -> None:
    put(session, workspace, before, host="somewhere")

    response = client.post(f"{JOBS}/train/{action}", content_type="application/json")

    assert (response.status_code, response.json["status"]) == (200, after)


@pytest.mark.parametrize("before", sorted(set(JobStatus) - JOB_TERMINAL))
def test_a_job_of_which_nothing_runs_is_cancelled_at_once(
    client: FlaskClient, session: Session, workspace: Workspace, before: JobStatus
) -> None:
    put(session, workspace, before)

    response = client.post(f"{JOBS}/train/cancel")

    assert response.json["status"] == "cancelled"


def test_the_host_of_a_job_that_must_stop_is_notified_and_nobody_for_one_that_has_ended(
    client: FlaskClient, session: Session, workspace: Workspace, publisher: RecordingPublisher
) -> None:
    put(session, workspace, JobStatus.ACTIVE, "running", host="somewhere")
    put(session, workspace, JobStatus.COMPLETED, "ended")

    for name in ("running", "ended"):
        client.post(f"{JOBS}/{name}/cancel")

    assert [(message.facts["job"], message.queue) for message in publisher.published] == [
        ("running", "runtime.somewhere")
    ]


def test_the_operator_decides_which_execution_profiles_there_are(context: Context, session: Session) -> None:
    named = (
        ExecutionProfile(
            provider="subprocess",
            profile="short",
            time_limit_seconds=60,
            stop_grace_seconds=0,
            environment={"TOKEN": "hidden"},
        ),
        ExecutionProfile(provider="cpu"),
    )
    settings = context.settings.model_copy(update={"execution_profiles": named})
    client = create_app(replace(context, settings=settings)).test_client()

    assert client.get("/apis/jobs/v2/execution-profiles").json == [
        {
            "provider": "subprocess",
            "profile": "short",
            "backend": "subprocess",
            "config": {"time_limit_seconds": 60, "stop_grace_seconds": 0, "environment": ["TOKEN"]},
        },
        {"provider": "cpu", "profile": "default", "backend": "subprocess", "config": {}},
    ]
    absent = client.post(JOBS, json=a_job())
    assert (absent.status_code, absent.json) == (
        422,
        {"detail": "The execution profile 'subprocess/default' specified in step 'only' does not exist."},
    )
    short = {"provider": "subprocess", "profile": "short", "command": ["true"]}
    assert client.post(JOBS, json=with_step(executor=short)).status_code == 201


def test_where_no_process_may_be_started_no_job_is_accepted(context: Context, session: Session) -> None:
    settings = context.settings.model_copy(update={"subprocess_provider": "off"})
    client = create_app(replace(context, settings=settings)).test_client()

    response = client.post(JOBS, json=a_job())

    assert client.get("/apis/jobs/v2/execution-profiles").json == []
    assert (response.status_code, response.json) == (
        422,
        {
            "detail": "The execution profile 'subprocess/default' specified in step 'only' does not exist. No job can "
            "run here: WORKSPACES_SUBPROCESS_PROVIDER is 'off', which keeps processes off this server."
        },
    )
    assert count(session, Job) == 0


def test_a_job_that_has_ended_runs_again_as_a_new_attempt(
    client: FlaskClient, session: Session, workspace: Workspace, publisher: RecordingPublisher
) -> None:
    before = put(
        session,
        workspace,
        JobStatus.ERROR,
        platform_spec={"steps": [STEP]},
        error_details={"message": "oops"},
        steps=[{"name": "only"}],
        status_details={"epoch": 7},
    )

    response = client.post(f"{JOBS}/train/rerun")

    again = response.json
    assert (response.status_code, again["status"]) == (200, "created")
    assert (again["id"], again["attempt_id"] == str(before.attempt_id)) == (str(before.id), False)
    assert (again["error_details"], again["status_details"]) == (None, {})
    assert [step["status"] for step in client.get(f"{JOBS}/train/status").json["steps"]] == ["created"]
    assert [message.facts["job"] for message in publisher.published] == ["train"]


@pytest.mark.parametrize(
    ("status", "values"),
    [
        *((status, {}) for status in sorted(set(JobStatus) - JOB_TERMINAL)),
        (JobStatus.ERROR, {"host": "somewhere"}),
        (JobStatus.CANCELLED, {"delete_requested_at": clock.now()}),
    ],
)
def test_a_job_that_has_not_quite_ended_does_not_run_again(
    client: FlaskClient, session: Session, workspace: Workspace, status: JobStatus, values: dict[str, Any]
) -> None:
    job = put(session, workspace, status, **values)
    attempt_id = job.attempt_id

    response = client.post(f"{JOBS}/train/rerun")

    session.refresh(job)
    assert (response.status_code, job.status, job.attempt_id) == (409, status, attempt_id)
    assert f"Cannot rerun job 'train' from '{status}'" in response.json["detail"]


@pytest.mark.parametrize("status", [JobStatus.CREATED, JobStatus.COMPLETED])
def test_deleting_a_job_that_does_not_run_removes_it_with_its_fileset_and_bytes_at_once(
    client: FlaskClient, session: Session, context: Context, workspace: Workspace, status: JobStatus
) -> None:
    put(session, workspace, status)
    fileset = make_fileset(session, workspace, "job-fileset-train", store=context.store, files={"a": b"1"})
    kept = make_fileset(session, workspace, "kept", store=context.store, files={"a": b"1"})
    session.commit()

    response = client.delete(f"{JOBS}/train", content_type="application/json")

    assert (response.status_code, response.data) == (204, b"")
    assert client.get(f"{JOBS}/train").status_code == 404
    assert list(context.store.files(workspace.id, fileset.id)) == []
    assert len(list(context.store.files(workspace.id, kept.id))) == 1
    assert (count(session, Job), count(session, Fileset)) == (0, 1)


def test_deleting_a_running_job_stops_it_first_and_it_goes_when_its_host_has_seen_it_end(
    client: FlaskClient, session: Session, context: Context, publisher: RecordingPublisher
) -> None:
    job_id = UUID(create(client)["id"])
    session.execute(update(Job).values(status=JobStatus.ACTIVE, host="somewhere"))
    session.commit()

    assert client.delete(f"{JOBS}/train").status_code == 204
    assert client.get(f"{JOBS}/train").json["status"] == "cancelling"
    assert client.post(JOBS, json=a_job()).status_code == 409
    assert (publisher.published[-1].facts["job_id"], publisher.published[-1].queue) == (
        str(job_id),
        "runtime.somewhere",
    )

    session.execute(update(Job).values(status=JobStatus.CANCELLED))
    session.commit()
    assert client.delete(f"{JOBS}/train").status_code == 204
    assert client.get(f"{JOBS}/train").json["status"] == "cancelled"

    session.execute(update(Job).values(host=None))
    session.commit()
    assert remove_ended(context, job_id)
    assert client.get(f"{JOBS}/train").status_code == 404
    assert (count(session, Job), count(session, Fileset)) == (0, 0)


def test_a_job_with_too_many_files_for_one_request_goes_with_the_messages_that_follow(
    client: FlaskClient, session: Session, context: Context, publisher: RecordingPublisher
) -> None:
    job_id = UUID(create(client)["id"])
    fileset_id, workspace_id = session.execute(select(Fileset.id, Fileset.workspace_id)).one()
    for path in ("a", "b", "c"):
        context.store.publish(context.store.stage(workspace_id, fileset_id, path, [b"x"]))
    session.execute(update(Job).values(status=JobStatus.COMPLETED))
    session.commit()
    HastyStore.in_place_of_that_of(context)

    assert client.delete(f"{JOBS}/train").status_code == 204
    assert publisher.published[-1].facts["job_id"] == str(job_id)
    messages = 1
    while not remove_ended(context, job_id):
        messages += 1

    assert messages > 2
    assert (count(session, Job), count(session, Fileset)) == (0, 0)
    assert context.store.size(workspace_id) == 0


@pytest.mark.usefixtures("free_slot")
def test_status_details_are_merged(client: FlaskClient) -> None:
    create(client)

    client.patch(f"{JOBS}/train/status-details", json={"a": 1, "b": 1})
    response = client.patch(f"{JOBS}/train/status-details", json={"b": 2})

    assert (response.status_code, response.json) == (200, None)
    assert client.get(f"{JOBS}/train").json["status_details"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("path", ["", "/status"])
def test_a_job_says_what_it_waits_for(client: FlaskClient, path: str) -> None:
    create(client)
    client.patch(f"{JOBS}/train/status-details", json={"a": 1})

    assert client.get(f"{JOBS}/train{path}").json["status_details"] == {
        "a": 1,
        "waiting_for": "a runtime worker: none takes up jobs",
    }


def test_the_status_names_the_step_whose_turn_it_is(client: FlaskClient) -> None:
    job = create(client, platform_spec={"steps": [STEP, {**STEP, "name": "later"}]})

    status = client.get(f"{JOBS}/train/status").json
    steps = client.get(f"{JOBS}/train/steps").json["data"]

    assert (status["id"], status["status"], status["error_details"]) == (job["id"], "created", {})
    assert [(step["name"], step["status"], step["tasks"]) for step in status["steps"]] == [
        ("only", "created", [])
    ]
    assert [(step["id"], step["job"], step["step_spec"]["name"]) for step in steps] == [
        (status["steps"][0]["id"], "train", "only")
    ]


def test_steps_of_all_jobs_are_listed_by_status(client: FlaskClient) -> None:
    for name in ("ab", "cd"):
        create(client, name=name)
    client.post(f"{JOBS}/ab/cancel")

    page = client.get('/apis/jobs/v2/workspaces/-/jobs/-/steps?filter={"status":["created"]}').json

    assert [step["job"] for step in page["data"]] == ["cd"]
    assert client.get(f"{JOBS}/nope/steps").json["data"] == []
