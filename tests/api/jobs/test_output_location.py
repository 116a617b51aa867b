"""Jobs whose results go to a fileset that was there before them, and stays."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.access.permissions import Permission
from app.access.principal import Principal
from app.cleanup.engine import run_slice
from app.cleanup.requests import request_deletion
from app.context import Context
from app.db import session_scope
from app.errors import Unprocessable, WrongState
from app.lifecycle import JOB_TERMINAL, JOB_UNENDED, JobStatus
from app.models import Fileset, Job, Workspace
from app.services import jobs
from app.services.filesets import SERVICE_SOURCE, delete_fileset
from app.services.job_results import folder_of, note
from tests.factories import make_binding, make_fileset, make_job, make_workspace, rows_of
from tests.support.actors import trusted
from tests.support.locks import has_to_wait, meanwhile

JOBS = "/apis/jobs/v2/workspaces/ml-team/jobs"
FILESETS = "/apis/files/v2/workspaces/ml-team/filesets"
STEP = {"name": "only", "executor": {"provider": "subprocess", "command": ["true"]}}
BODY = {"name": "train", "source": "tests", "spec": {}, "platform_spec": {"steps": [STEP]}}
MISSING = {"detail": "fileset 'shared' not found or not accessible in workspace 'ml-team'"}


@pytest.fixture(autouse=True)
def workspace(session: Session) -> Workspace:
    workspace = make_workspace(session, "ml-team")
    session.commit()
    return workspace


@pytest.fixture
def shared(session: Session, context: Context, workspace: Workspace) -> Fileset:
    shared = make_fileset(session, workspace, "shared", store=context.store, files={"before": b"1"})
    session.commit()
    return shared


def create(client: FlaskClient, **body: Any) -> Any:
    return client.post(JOBS, json={**BODY, "output_location": "shared", **body})


def paths(context: Context, fileset: Fileset) -> list[str]:
    return [file.path for file in context.store.files(fileset.workspace_id, fileset.id)]


@pytest.mark.usefixtures("shared")
def test_a_job_names_the_fileset_of_its_results_and_gets_none_of_its_own(
    client: FlaskClient, session: Session
) -> None:
    created = create(client, output_location="  shared\n")

    assert created.status_code == 201, created.text
    assert (created.json["fileset"], created.json["output_location"]) == ("shared", "shared")
    assert session.scalars(select(Fileset.name)).all() == ["shared"]
    [listed] = client.get(JOBS).json["data"]
    assert listed["output_location"] == "shared"
    assert client.get(f"{JOBS}/train/steps").json["data"][0]["artifact_base_path"] == "jobs/train"


def test_a_job_with_a_fileset_of_its_own_has_no_folder_in_it(client: FlaskClient) -> None:
    assert create(client, output_location=None).json["fileset"] == "job-fileset-train"
    assert client.get(f"{JOBS}/train/steps").json["data"][0]["artifact_base_path"] is None


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ("", "value_error", "output_location must not be empty"),
        (" \t", "value_error", "output_location must not be empty"),
        ("shared#a/b", "value_error", "subpath in output_location is not yet supported"),
        (
            "ml-team/shared",
            "value_error",
            "output_location must be a bare fileset name; the workspace is implied",
        ),
        ("a" * 256, "value_error", "output_location must have at most 255 characters"),
        ("..", "string_pattern_mismatch", "Invalid name"),
        ("Shared", "string_pattern_mismatch", "Invalid name"),
        (7, "string_type", "Input should be a valid string"),
    ],
)
def test_what_can_name_no_fileset_is_refused_where_it_stands(
    client: FlaskClient, session: Session, given: Any, kind: str, message: str
) -> None:
    response = create(client, output_location=given)

    assert response.status_code == 422
    [error] = response.json["detail"]
    assert (error["type"], error["loc"]) == (kind, ["body", "output_location"])
    assert message in error["msg"]
    assert session.scalars(select(Job.name)).all() == []


def test_a_fileset_that_is_missing_or_in_another_workspace_is_not_found(
    client: FlaskClient, session: Session
) -> None:
    make_fileset(session, make_workspace(session, "other"), "shared")
    session.commit()

    response = create(client)

    assert (response.status_code, response.json) == (422, MISSING)
    assert session.scalars(select(Job.name)).all() == []


def test_a_fileset_that_the_caller_may_not_change_is_as_if_missing(
    client: FlaskClient, session: Session, shared: Fileset, workspace: Workspace
) -> None:
    make_binding(session, workspace, "ann", "Editor")
    session.commit()

    def attempt(*scopes: str) -> Job:
        principal = Principal("ann", scopes=frozenset(scopes) or None)
        is_in_scope = principal.has_scope_for("jobs", "write")
        actor = Actor(principal, Permission.JOBS_WRITE, is_in_scope=is_in_scope)
        return jobs.create_job(
            session,
            actor,
            "ml-team",
            name=None,
            source="tests",
            project=None,
            output_location="shared",
            spec={},
            platform_spec={"steps": [STEP]},
        )

    for scopes in (["jobs:write"], ["jobs:write", "files:read"]):
        with pytest.raises(Unprocessable, match="not found or not accessible"):
            attempt(*scopes)
    assert attempt("jobs:write", "files:write").fileset == "shared"
    assert attempt().fileset == "shared"
    shared.custom_fields = {SERVICE_SOURCE: "a service"}
    session.flush()
    with pytest.raises(Unprocessable, match="not found or not accessible"):
        attempt()


def test_the_own_fileset_of_another_job_is_refused_because_it_would_go_with_that(client: FlaskClient) -> None:
    assert create(client, name="first", output_location=None).status_code == 201

    response = create(client, output_location="job-fileset-first")

    assert response.status_code == 422
    assert response.json["detail"].startswith("fileset 'job-fileset-first' goes with job 'first'")


def test_two_jobs_leave_their_results_side_by_side_and_any_is_downloaded(
    client: FlaskClient, session: Session, context: Context, workspace: Workspace, shared: Fileset
) -> None:
    for name in ("one", "two"):
        job = make_job(session, workspace, name, output_location="shared")
        folder = folder_of(job)
        note(job, {"score": f"/shared#{folder}/score"})
        staged = context.store.stage(workspace.id, shared.id, f"{folder}/score", [name.encode()])
        context.store.publish(staged)
    session.commit()

    assert paths(context, shared) == ["before", "jobs/one/results/score", "jobs/two/results/score"]
    for name in ("one", "two"):
        [result] = client.get(f"{JOBS}/{name}/results").json["data"]
        assert result["artifact_url"] == f"ml-team/shared#jobs/{name}/results/score"
        assert client.get(f"{JOBS}/{name}/results/score/download").data == name.encode()


@pytest.mark.parametrize("status", sorted(JOB_TERMINAL))
def test_deleting_a_job_leaves_the_fileset_and_what_is_in_it(
    client: FlaskClient,
    session: Session,
    context: Context,
    workspace: Workspace,
    shared: Fileset,
    status: JobStatus,
) -> None:
    job = make_job(session, workspace, "train", status, output_location="shared")
    note(job, {"score": f"/shared#{folder_of(job)}/score"})
    path = f"{folder_of(job)}/score"
    context.store.publish(context.store.stage(workspace.id, shared.id, path, [b"0.9"]))
    session.commit()

    assert client.delete(f"{JOBS}/train").status_code == 204

    assert client.get(f"{JOBS}/train").status_code == 404
    assert paths(context, shared) == ["before", path]
    assert client.get(f"{FILESETS}/shared/-/{path}").data == b"0.9"


@pytest.mark.parametrize("status", sorted(JobStatus))
def test_a_fileset_stays_while_a_job_may_write_to_it(
    client: FlaskClient,
    session: Session,
    context: Context,
    workspace: Workspace,
    shared: Fileset,
    status: JobStatus,
) -> None:
    make_job(session, workspace, "train", status, output_location="shared")
    make_job(session, make_workspace(session, "other"), "theirs", JobStatus.ACTIVE, output_location="shared")
    session.commit()

    response = client.delete(f"{FILESETS}/shared")

    if status in JOB_UNENDED:
        assert (response.status_code, response.json) == (
            409,
            {
                "detail": "Cannot delete fileset 'ml-team/shared' because job 'train' has not ended and writes its "
                "results to it. Cancel the job, or wait for its end."
            },
        )
        assert paths(context, shared) == ["before"]
    else:
        assert response.status_code == 200
        assert paths(context, shared) == []


def test_a_job_that_would_write_to_a_deleted_fileset_does_not_run_again(
    client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    job = make_job(session, workspace, "train", JobStatus.COMPLETED, output_location="shared")
    session.commit()

    refused = client.post(f"{JOBS}/train/rerun")

    session.refresh(job)
    assert (refused.status_code, job.status) == (409, JobStatus.COMPLETED)
    assert "the fileset 'shared', was deleted. Create it again." in refused.json["detail"]
    make_fileset(session, workspace, "shared")
    session.commit()
    assert client.post(f"{JOBS}/train/rerun").json["status"] == "created"


def test_a_job_runs_again_only_for_a_caller_who_could_create_it(
    session: Session, shared: Fileset, workspace: Workspace
) -> None:
    """The fileset may have been made anew, by a service that lets nobody else write to it."""
    make_job(session, workspace, "train", JobStatus.COMPLETED, output_location="shared")
    make_binding(session, workspace, "ann", "Editor")
    session.commit()

    def rerun(*scopes: str) -> Job:
        principal = Principal("ann", scopes=frozenset(scopes) or None)
        return jobs.rerun(session, Actor(principal, Permission.JOBS_WRITE), "ml-team", "train")

    with pytest.raises(WrongState, match="Cannot rerun job 'train': fileset 'shared' not found or not acc"):
        rerun("jobs:write")
    session.rollback()
    assert rerun("jobs:write", "files:write").status is JobStatus.CREATED
    session.rollback()
    shared.custom_fields = {SERVICE_SOURCE: "a service"}
    session.commit()
    with pytest.raises(WrongState, match="Cannot rerun job 'train': fileset 'shared' not found or not acc"):
        rerun()
    session.rollback()
    assert session.scalars(select(Job.status)).all() == [JobStatus.COMPLETED]


def test_a_deletion_of_the_fileset_waits_for_the_job_that_is_being_created_and_is_refused(
    database: Engine, context: Context, session: Session, workspace: Workspace, shared: Fileset
) -> None:
    def delete() -> None:
        with session_scope(context.sessions) as other:
            delete_fileset(other, trusted("bob"), context.store, workspace="ml-team", name="shared")

    creating: dict[str, Any] = {
        "source": "tests",
        "project": None,
        "spec": {},
        "platform_spec": {"steps": [STEP]},
    }
    with session_scope(context.sessions) as creator:
        jobs.create_job(
            creator, trusted("ann"), "ml-team", name="train", output_location="shared", **creating
        )
        with meanwhile(delete) as deleting:
            assert has_to_wait(database, deleting)
            creator.commit()

    assert "job 'train' has not ended" in str(deleting.exception())
    assert session.scalars(select(Fileset.name)).all() == ["shared"]


def test_a_workspace_goes_with_the_job_first_and_then_the_fileset_with_all_that_it_left(
    session: Session, context: Context, workspace: Workspace, shared: Fileset
) -> None:
    job = make_job(session, workspace, "train", output_location="shared")
    context.store.publish(context.store.stage(workspace.id, shared.id, f"{folder_of(job)}/score", [b"0.9"]))
    session.commit()
    with session_scope(context.sessions) as other:
        deletion = request_deletion(other, context, trusted("ann"), "ml-team").id

    for _ in range(10):
        run_slice(context, deletion, owner="test")

    assert rows_of(session, workspace.id) == {}
    assert context.store.size(workspace.id) == 0
    assert session.scalars(select(Workspace.id).where(Workspace.id == workspace.id)).all() == []
