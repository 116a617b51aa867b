"""What the API says when the store behind it fails, and what it refuses before the store is asked."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import create_app
from app.config import Settings
from app.context import Context
from app.db import connect, sessions_of
from app.storage.marker import KEY
from tests.factories import make_fileset, make_workspace
from tests.support.s3 import BUCKET, S3Server, s3fs_uses, serving_s3
from tests.support.s3_proxy import FORBIDDEN, SLOW_DOWN, TRUNCATED, Fault, Proxy, proxying

FILESET = "/apis/files/v2/workspaces/ml-team/filesets/data"
FILE = f"{FILESET}/-/a/b"
NO_BUCKET = Fault(404, "NoSuchBucket", "The specified bucket does not exist")
FAULTS = {"slow down": SLOW_DOWN, "revoked": FORBIDDEN, "truncated": TRUNCATED, "no bucket": NO_BUCKET}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[Proxy]:
    with proxying(s3.endpoint) as proxy, s3fs_uses(proxy.endpoint):
        yield proxy


@pytest.fixture
def settings(settings: Settings, proxy: Proxy) -> Settings:
    return settings.model_copy(update={"storage_url": f"s3://{BUCKET}/{uuid4()}"})


@pytest.fixture(autouse=True)
def file(client: FlaskClient, session: Session) -> None:
    """A fileset with one file."""
    make_fileset(session, make_workspace(session, "ml-team"), "data")
    session.commit()
    assert client.put(FILE, data=b"old").status_code == 200


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("request_", ["GET file", "PUT file", "DELETE file", "GET list", "DELETE fileset"])
def test_a_store_that_fails_is_a_503_that_says_so(
    client: FlaskClient, proxy: Proxy, fault: str, request_: str
) -> None:
    method, _, what = request_.partition(" ")
    url = {"file": FILE, "list": f"{FILESET}/files", "fileset": FILESET}[what]
    proxy.fail(FAULTS[fault])
    if (fault, request_) == ("truncated", "DELETE file"):
        return  # what it asks of the store is answered without a body

    answer = client.open(url, method=method, data=b"new" if method == "PUT" else None)

    assert answer.status_code == 503
    assert "storage failed" in answer.json["detail"]
    if request_ != "DELETE fileset":  # it says that it may be half done
        # Another try will not help where a person has to act.
        assert ("try again" in answer.json["detail"]) is (fault not in ("revoked", "no bucket"))
    assert "secret" not in answer.text
    assert proxy.endpoint not in answer.text
    proxy.fail(None)
    assert client.get(FILE).data in (b"old", b"")  # b"": a fileset that was half deleted


@pytest.mark.parametrize("artifact", ["a/b", "a"], ids=["file", "directory"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_result_that_the_store_does_not_give_out_is_a_503_and_no_broken_download(
    client: FlaskClient, proxy: Proxy, fault: str, artifact: str
) -> None:
    jobs = "/apis/jobs/v2/workspaces/ml-team/jobs"
    step = {"name": "main", "executor": {"provider": "subprocess", "command": ["true"]}}
    job = {"name": "train", "source": "tests", "spec": {}, "platform_spec": {"steps": [step]}}
    assert client.post(jobs, json=job).status_code == 201
    declared = {"artifact_url": f"ml-team/data#{artifact}", "artifact_storage_type": "fileset"}
    assert client.post(f"{jobs}/train/results/it", json=declared).status_code == 201
    # Only the content itself fails: what is there can still be seen.
    proxy.choose = lambda method, target: (
        FAULTS[fault] if method == "GET" and "list-type" not in target else None
    )

    answer = client.get(f"{jobs}/train/results/it/download")

    assert answer.status_code == 503
    assert "storage failed" in answer.json["detail"]


def test_a_file_that_the_store_fails_to_publish_leaves_the_old_one_and_no_parts(
    client: FlaskClient, context: Context, proxy: Proxy, s3: S3Server
) -> None:
    root = context.settings.storage_url.removeprefix(f"s3://{BUCKET}/")
    # Completing an upload is the only POST that names one.
    proxy.choose = lambda method, target: SLOW_DOWN if method == "POST" and "uploadId" in target else None

    assert client.put(FILE, data=b"new").status_code == 503

    proxy.fail(None)
    assert client.get(FILE).data == b"old"
    assert [key.rpartition("/")[2] for key in s3.keys(root) if not key.endswith(KEY)] == ["b"]


@pytest.mark.parametrize(("method", "holding"), [("PUT", ["POST"]), ("DELETE", []), ("GET", [])], ids=str)
def test_only_what_makes_a_file_visible_is_asked_of_the_store_while_locks_are_held(
    client: FlaskClient, proxy: Proxy, session: Session, method: str, holding: list[str]
) -> None:
    """A slow store would keep a DELETE of the workspace waiting, and PostgreSQL would end the transaction."""
    held = []

    def look(method: str, target: str) -> None:
        try:
            session.execute(text("SELECT 1 FROM workspaces, filesets FOR UPDATE NOWAIT"))
        except OperationalError:
            held.append(method)
        session.rollback()

    proxy.choose = look

    assert client.open(FILE, method=method, data=b"new").status_code == 200
    assert held == holding


def test_a_store_that_takes_longer_than_a_transaction_may_is_a_503_that_says_what_to_do(
    app: Flask, context: Context, proxy: Proxy
) -> None:
    engine = connect(context.settings.model_copy(update={"statement_timeout_seconds": 0.05}))
    impatient = create_app(replace(context, sessions=sessions_of(engine)))
    proxy.choose = lambda method, target: (
        Fault(delay_s=1) if method == "POST" and "uploadId" in target else None
    )

    answer = impatient.test_client().put(FILE, data=b"new")
    engine.dispose()

    assert answer.status_code == 503
    assert "repeat the request" in answer.json["detail"]
    assert app.test_client().put(FILE, data=b"newer").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "a/b/",
        "a//b",
        "./a",
        "a/./b",
        "a/../b",
        "..",
        "%2Fa",
        "a%00b",
        "a%0Ab",
        "a%7Fb",
        "a%3FversionId%3D1",  # which would be read from, and written to, the file `a`
        "%ff",
        "x" * 256,
        "a/" * 520,
    ],
)
def test_no_path_that_a_bucket_would_take_but_a_directory_would_not_reaches_it(
    client: FlaskClient, proxy: Proxy, path: str
) -> None:
    before = len(proxy.requests)

    for method in ("PUT", "GET", "DELETE"):
        answer = client.open(f"{FILESET}/-/{path}", method=method, data=b"x")
        assert answer.status_code == 400, (method, answer.text)
        assert answer.json["detail"]
    assert proxy.requests[before:] == []


def test_a_path_that_is_too_long_only_for_a_key_is_refused(client: FlaskClient, proxy: Proxy) -> None:
    path = "/".join(["x" * 199] * 5)
    proxy.fail(Fault(400, "KeyTooLongError", "Your key is too long"), only="?uploads")

    answer = client.put(f"{FILESET}/-/{path}", data=b"x")

    assert answer.status_code == 400
    assert "too long" in answer.json["detail"]


@pytest.mark.parametrize("path", ["a", "a/b/c"])
def test_a_key_is_not_also_a_prefix(client: FlaskClient, path: str) -> None:
    assert client.put(f"{FILESET}/-/{path}", data=b"x").status_code == 409
    assert client.get(FILE).data == b"old"
