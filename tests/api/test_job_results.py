"""The results of a job over HTTP: declared, listed, downloaded."""

import io
import tarfile
import tracemalloc
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.access.permissions import Permission
from app.access.principal import Principal
from app.api.endpoint import Call
from app.api.job_results import NewResult, declare_result, download_result
from app.context import Context
from app.errors import Forbidden
from app.lifecycle import JobStatus, WorkspaceState
from app.models import Workspace
from app.storage import BlobStore
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
    assert 'attachment; filename="score"' in response.headers["Content-Disposition"]


def test_a_directory_is_downloaded_as_an_archive_of_what_is_in_it(client: FlaskClient) -> None:
    declare(client, "the-model", "results/model")

    response = client.get(f"{RESULTS}/the-model/download")

    assert (response.status_code, response.mimetype) == (200, "application/x-tar")
    assert 'filename="the-model.tar.gz"' in response.headers["Content-Disposition"]
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
    "url", ["", "train", "ml-team/x", "ml-team/x#", "#a", "ml-team/x#../a", "ml-team/x#/a", "ml-team/x#a//b"]
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
    session: Session, context: Context
) -> None:
    other = make_workspace(session, "other")
    put_files(session, context.store, other, "data", {"a": b"secret"})
    mine = session.query(Workspace).filter_by(name="ml-team").one()
    make_binding(session, mine, "ann", "Editor")
    for home in (mine, other):
        make_binding(session, home, "bob", "Editor")
    session.commit()
    new = NewResult(artifact_url="other/data#a", artifact_storage_type="fileset")

    def call(person: str, permission: Permission) -> Call:
        return Call(context, Actor(Principal(person), permission), session)

    with pytest.raises(Forbidden):
        declare_result(call("ann", Permission.JOBS_REPORT), "ml-team", "train", "theirs", new)
    declare_result(call("bob", Permission.JOBS_REPORT), "ml-team", "train", "theirs", new)
    session.commit()

    with pytest.raises(Forbidden):
        download_result(call("ann", Permission.JOBS_READ), "ml-team", "train", "theirs")
    response = download_result(call("bob", Permission.JOBS_READ), "ml-team", "train", "theirs")
    assert b"".join(response.response) == b"secret"
