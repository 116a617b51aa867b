"""The results of a job over HTTP: declared, listed, downloaded."""

import io
import tarfile
import tracemalloc
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update
from sqlalchemy.orm import Session
from werkzeug.http import parse_options_header

from app.access.authorize import Actor
from app.access.permissions import Permission
from app.access.principal import Principal
from app.api.jobs.results import ResultCreate, declare_result, download_result
from app.context import Context
from app.errors import Forbidden
from app.http.route import RequestContext
from app.lifecycle import JobStatus, WorkspaceState
from app.models import Fileset, Job, Workspace
from app.services.job_results import note
from app.storage.blob_store import BlobStore
from tests.factories import make_binding, make_fileset, make_job, make_workspace

RESULTS = "/apis/jobs/v2/workspaces/ml-team/jobs/train/results"
FILES = {"results/score": b"0.9", "results/model/a": b"a" * 3000, "results/model/deep/ä": b""}


def put_files(
    session: Session, store: BlobStore, home: Workspace, name: str, files: dict[str, bytes]
) -> None:
    fileset = make_fileset(session, home, name)
    for path, content in files.items():
        staged = store.stage(home.id, fileset.id, path, [content])
        store.publish(staged)
        store.discard(staged)


@pytest.fixture(autouse=True)
def workspace(session: Session, context: Context) -> Workspace:
    workspace = make_workspace(session, "ml-team")
    job = make_job(session, workspace, "train", JobStatus.ACTIVE)
    put_files(session, context.store, workspace, job.fileset, FILES)
    session.commit()
    return workspace


def declare(client: FlaskClient, name: str, path: str, **more: Any) -> Any:
    url = path if "#" in path else f"ml-team/job-fileset-train#{path}"
    return client.post(
        f"{RESULTS}/{name}", json={"artifact_url": url, "artifact_storage_type": "fileset", **more}
    )


def test_a_declared_result_is_shown_with_every_key_of_the_contract(
    client: FlaskClient, session: Session
) -> None:
    response = declare(client, "score", "results/score")

    shown = response.json
    assert (response.status_code, client.get(f"{RESULTS}/score").json) == (201, shown)
    assert shown.pop("created_at").endswith("Z")
    assert shown.pop("updated_at").endswith("Z")
    assert shown == {
        "name": "score",
        "job": client.get(RESULTS.removesuffix("/results")).json["id"],
        "workspace": "ml-team",
        "project": None,
        "artifact_url": "ml-team/job-fileset-train#results/score",
        "artifact_storage_type": "fileset",
        "download_url": f"{RESULTS}/score/download",
    }


def test_results_are_listed_in_the_order_asked_for_one_for_each_name(client: FlaskClient) -> None:
    for name, path in [("aa", "results/model"), ("bb", "results/score"), ("aa", "results/score")]:
        declare(client, name, path)

    def names(sort: str) -> list[str]:
        return [result["name"] for result in client.get(f"{RESULTS}?sort={sort}").json["data"]]

    assert names("created_at") == ["aa", "bb"]
    assert names("-created_at") == ["bb", "aa"]
    assert names("-updated_at") == ["aa", "bb"]
    assert client.get(f"{RESULTS}/aa").json["artifact_url"].endswith("#results/score")
    assert client.get(f"{RESULTS}?sort=size").status_code == 422


def test_a_file_is_downloaded_as_it_is(client: FlaskClient) -> None:
    declare(client, "score", "results/score")

    response = client.get(f"{RESULTS}/score/download")

    assert (response.status_code, response.data, response.content_length) == (200, b"0.9", 3)
    assert response.mimetype == "application/octet-stream"
    assert response.headers["Content-Disposition"] == "attachment; filename=score"


def test_a_directory_is_downloaded_as_an_archive_of_what_is_in_it(client: FlaskClient) -> None:
    declare(client, "the-model", "results/model")

    response = client.get(f"{RESULTS}/the-model/download")

    assert (response.status_code, response.mimetype) == (200, "application/x-tar")
    assert response.headers["Content-Disposition"] == "attachment; filename=the-model.tar.gz"
    with tarfile.open(fileobj=io.BytesIO(response.data), mode="r:gz") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    assert members == {"model/a": b"a" * 3000, "model/deep/ä": b""}


def test_an_archive_is_made_in_constant_memory(
    client: FlaskClient, session: Session, context: Context, workspace: Workspace
) -> None:
    put_files(session, context.store, workspace, "large", {"d/zeros": bytes(64 * 1024 * 1024)})
    session.commit()
    declare(client, "large", "ml-team/large#d")

    tracemalloc.start()
    response = client.get(f"{RESULTS}/large/download", buffered=False)
    size = sum(len(chunk) for chunk in response.response)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert size < 1024 * 1024
    assert peak < 16 * 1024 * 1024


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "train",
            "ml-team/x",
            "ml-team/x#",
            "#a",
            "/x#a",
            "ml-team/x#../a",
            "ml-team/x#/a",
            "ml-team/x#a//b",
        ),
        *("ml-team/x#" + "a" * 256, "ml-team/x#a\x01", "ml-team/x#a?versionId=1"),
    ],
)
def test_an_artifact_that_is_none_is_refused(client: FlaskClient, url: str) -> None:
    body = {"artifact_url": url, "artifact_storage_type": "fileset"}

    assert client.post(f"{RESULTS}/bad", json=body).status_code == 422


def test_a_result_that_is_not_there_is_not_found(client: FlaskClient) -> None:
    declare(client, "gone", "results/never")

    missing = client.get(f"{RESULTS}/nope")

    assert (missing.status_code, missing.json) == (
        404,
        {"detail": "Result 'nope' for job 'train' not found in workspace 'ml-team'."},
    )
    assert client.get(f"{RESULTS}/nope/download").status_code == 404
    assert client.get(f"{RESULTS}/gone/download").status_code == 404
    assert declare(client, "other", "ml-team/no-such-fileset#a").status_code == 404


@pytest.mark.parametrize("name", ["结果.txt", 'a"b.txt', "a\\b;c", "ä"])
def test_a_result_can_have_any_name_that_a_step_may_leave(
    client: FlaskClient, session: Session, context: Context, workspace: Workspace, name: str
) -> None:
    job = session.query(Job).one()
    fileset = session.query(Fileset).one()
    context.store.publish(context.store.stage(workspace.id, fileset.id, f"results/{name}", [b"x"]))
    note(job, {name: f"/{job.fileset}#results/{name}"})
    session.commit()

    response = client.get(client.get(RESULTS).json["data"][0]["download_url"])

    told = response.headers["Content-Disposition"]
    assert (response.status_code, response.data) == (200, b"x")
    assert told.isascii(), "the web server sends nothing else"
    assert parse_options_header(told) == ("attachment", {"filename": name})


def test_the_results_of_a_workspace_that_is_restored_under_another_name_stay_its_own(
    client: FlaskClient, session: Session, context: Context
) -> None:
    declare(client, "score", "results/score")
    client.put("/apis/entities/v2/cleanup-control", json={"paused": True})
    deletion = client.delete("/apis/entities/v2/workspaces/ml-team").json["deletion_id"]
    restored = client.post(f"/apis/entities/v2/deletions/{deletion}/restore", json={"name": "other"})
    assert restored.status_code == 200
    successor = make_workspace(session, "ml-team")
    job = make_job(session, successor, "train", JobStatus.COMPLETED)
    put_files(session, context.store, successor, job.fileset, {"results/score": b"the successor's"})
    session.commit()

    results = RESULTS.replace("ml-team", "other")
    shown = client.get(f"{results}/score").json

    assert shown["artifact_url"] == "other/job-fileset-train#results/score"
    assert client.get(shown["download_url"]).data == b"0.9"


@pytest.mark.parametrize("home", ["ml-team", "other"])
def test_a_token_for_jobs_alone_reads_what_jobs_have_left_and_no_other_file(
    client: FlaskClient, session: Session, context: Context, home: str
) -> None:
    workspace = session.query(Workspace).filter_by(name="ml-team").one()
    other = make_workspace(session, "other")
    for each in (workspace, other):
        put_files(session, context.store, each, "private", {"secret": b"secret"})
        make_binding(session, each, "ann", "Editor")
    session.commit()
    declare(client, "score", "results/score")
    declare(client, "secret", f"{home}/private#secret")

    def download(result: str, *scopes: str) -> bytes:
        ann = Actor(Principal("ann", scopes=frozenset(scopes)), Permission.JOBS_READ)
        with client.application.test_request_context():
            response = download_result(RequestContext(context, ann, session), "ml-team", "train", result)
            return b"".join(response.response)

    assert download("score", "jobs:read") == b"0.9"
    with pytest.raises(Forbidden):
        download("secret", "jobs:read")
    assert download("secret", "jobs:read", "files:read") == b"secret"


def test_the_artifact_of_a_workspace_that_is_gone_is_not_reached(
    client: FlaskClient, session: Session, context: Context
) -> None:
    other = make_workspace(session, "other")
    put_files(session, context.store, other, "data", {"a": b"secret"})
    session.commit()
    assert declare(client, "theirs", "other/data#a").status_code == 201
    assert client.get(f"{RESULTS}/theirs/download").data == b"secret"

    session.execute(update(Workspace).where(Workspace.name == "other").values(state=WorkspaceState.DELETING))
    session.commit()

    assert client.get(f"{RESULTS}/theirs/download").status_code == 404


def test_an_artifact_elsewhere_is_reached_only_by_those_who_may_read_there(
    app: Flask, session: Session, context: Context
) -> None:
    other = make_workspace(session, "other")
    put_files(session, context.store, other, "data", {"a": b"secret"})
    mine = session.query(Workspace).filter_by(name="ml-team").one()
    make_binding(session, mine, "ann", "Editor")
    for home in (mine, other):
        make_binding(session, home, "bob", "Editor")
    session.commit()
    new = ResultCreate(artifact_url="other/data#a", artifact_storage_type="fileset")

    def call(person: str, permission: Permission) -> RequestContext:
        return RequestContext(context, Actor(Principal(person), permission), session)

    with pytest.raises(Forbidden):
        declare_result(call("ann", Permission.JOBS_REPORT), "ml-team", "train", "theirs", new)
    declare_result(call("bob", Permission.JOBS_REPORT), "ml-team", "train", "theirs", new)
    session.commit()

    with pytest.raises(Forbidden):
        download_result(call("ann", Permission.JOBS_READ), "ml-team", "train", "theirs")
    with app.test_request_context():
        response = download_result(call("bob", Permission.JOBS_READ), "ml-team", "train", "theirs")
        assert b"".join(response.response) == b"secret"
