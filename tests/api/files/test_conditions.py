"""Conditions and ranges of files and of results, as RFC 9110 has them, in either store."""

import io
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from app.models import Fileset, Workspace
from app.services.job_results import folder_of, note
from tests.factories import make_fileset, make_job, make_workspace
from tests.support.both_stores import s3, settings
from tests.support.deadlines import DEADLINE_S

__all__ = ["s3", "settings"]

FILESET = "/apis/files/v2/workspaces/ml-team/filesets/data"
DIGITS = b"0123456789"


@pytest.fixture(autouse=True)
def fileset(session: Session) -> Fileset:
    fileset = make_fileset(session, make_workspace(session, "ml-team"), "data")
    session.commit()
    return fileset


# --- Ranges


@pytest.mark.parametrize(
    ("header", "content", "content_range"),
    [
        ("bytes=2-5", b"2345", "bytes 2-5/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("bytes=-99", DIGITS, "bytes 0-9/10"),
        ("bytes=0-0", b"0", "bytes 0-0/10"),
    ],
)
def test_a_range_is_a_part_of_the_file(
    client: FlaskClient, header: str, content: bytes, content_range: str
) -> None:
    client.put(f"{FILESET}/-/a", data=DIGITS)

    response = client.get(f"{FILESET}/-/a", headers={"Range": header})

    assert (response.status_code, response.data) == (206, content)
    assert response.headers["Content-Range"] == content_range
    assert response.content_length == len(content)


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=-0", "bytes=99999999999999999999999-"])
def test_a_range_outside_the_file_is_refused(client: FlaskClient, header: str) -> None:
    client.put(f"{FILESET}/-/a", data=DIGITS)

    response = client.get(f"{FILESET}/-/a", headers={"Range": header})

    assert response.status_code == 416
    assert response.headers["Content-Range"] == "bytes */10"


@pytest.mark.parametrize(
    "header", ["lines=1-2", "bytes=0-1,3-4", "bytes=5-2", "bytes=x", "bytes=-", "bytes", "=", "5"]
)
def test_a_range_that_is_of_another_unit_or_several_or_malformed_is_ignored(
    client: FlaskClient, header: str
) -> None:
    """A 416 would make clients give up that would be served with the whole file."""
    client.put(f"{FILESET}/-/a", data=DIGITS)

    response = client.get(f"{FILESET}/-/a", headers={"Range": header})

    assert (response.status_code, response.data) == (200, DIGITS)


def test_an_empty_file_has_no_part(client: FlaskClient) -> None:
    client.put(f"{FILESET}/-/a")

    for header in ("bytes=0-", "bytes=-5"):
        assert client.get(f"{FILESET}/-/a", headers={"Range": header}).status_code == 416


@pytest.mark.parametrize("form", ["W/{}", "{}x", "*"])
def test_a_part_is_of_a_file_that_the_client_names_exactly(client: FlaskClient, form: str) -> None:
    client.put(f"{FILESET}/-/a", data=DIGITS)
    tag = client.head(f"{FILESET}/-/a").headers["ETag"]
    for condition in (form.format(tag), tag.strip('"')):
        response = client.get(f"{FILESET}/-/a", headers={"Range": "bytes=2-5", "If-Range": condition})

        assert (response.status_code, response.data) == (200, DIGITS)


def test_a_conditional_range_is_a_part_of_the_same_file_or_all_of_another(client: FlaskClient) -> None:
    client.put(f"{FILESET}/-/a", data=b"abcdefghij")
    condition = {"Range": "bytes=2-5", "If-Range": client.head(f"{FILESET}/-/a").headers["ETag"]}

    same = client.get(f"{FILESET}/-/a", headers=condition)
    client.put(f"{FILESET}/-/a", data=DIGITS)
    other = client.get(f"{FILESET}/-/a", headers=condition)
    weak = client.get(f"{FILESET}/-/a", headers={**condition, "If-Range": "Tue, 24 Nov 2026 00:00:00 GMT"})

    assert (same.status_code, same.data) == (206, b"cdef")
    assert (other.status_code, other.data) == (200, DIGITS)
    assert (weak.status_code, weak.data) == (200, DIGITS)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_that_the_client_has_is_not_sent_again(client: FlaskClient, method: str) -> None:
    client.put(f"{FILESET}/-/a", data=b"abcdefghij")
    tag = client.head(f"{FILESET}/-/a").headers["ETag"]

    def asked(condition: str, **headers: str) -> TestResponse:
        return client.open(f"{FILESET}/-/a", method=method, headers={"If-None-Match": condition, **headers})

    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = asked(known, Range="bytes=2-5")
        assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", tag)
        assert {"Content-Type", "Content-Length"}.isdisjoint(same.headers)
    assert asked('"other"').status_code == 200
    client.put(f"{FILESET}/-/a", data=DIGITS)
    changed = asked(tag)
    assert (changed.status_code, changed.data) == (200, DIGITS if method == "GET" else b"")


# --- Changes under a condition


def test_a_file_is_made_only_where_there_is_none(client: FlaskClient) -> None:
    first = client.put(f"{FILESET}/-/a", data=b"first", headers={"If-None-Match": "*"})
    second = client.put(f"{FILESET}/-/a", data=b"second", headers={"If-None-Match": "*"})

    assert (first.status_code, second.status_code) == (200, 412)
    assert "exists" in second.json["detail"]
    assert client.get(f"{FILESET}/-/a").data == b"first"


def test_a_file_is_replaced_only_if_it_is_the_one_that_was_read(client: FlaskClient) -> None:
    client.put(f"{FILESET}/-/a", data=b"old")
    tag = client.head(f"{FILESET}/-/a").headers["ETag"]

    def put(content: bytes, condition: str) -> int:
        return client.put(f"{FILESET}/-/a", data=content, headers={"If-Match": condition}).status_code

    assert put(b"x", '"other"') == 412
    assert put(b"x", f"W/{tag}") == 412
    assert put(b"new", f'"other", {tag}') == 200
    assert put(b"x", tag) == 412
    assert client.get(f"{FILESET}/-/a").data == b"new"
    assert put(b"newest", "*") == 200
    assert client.put(f"{FILESET}/-/b", data=b"x", headers={"If-Match": "*"}).status_code == 412
    assert client.get(f"{FILESET}/-/b").status_code == 404


def test_a_file_is_deleted_only_if_it_is_the_one_that_was_read(client: FlaskClient) -> None:
    client.put(f"{FILESET}/-/a", data=b"old")
    tag = client.head(f"{FILESET}/-/a").headers["ETag"]
    client.put(f"{FILESET}/-/a", data=b"newer")

    assert client.delete(f"{FILESET}/-/a", headers={"If-Match": tag}).status_code == 412
    assert client.delete(f"{FILESET}/-/a", headers={"If-None-Match": "*"}).status_code == 412
    assert client.delete(f"{FILESET}/-/b", headers={"If-Match": "*"}).status_code == 404
    tag = client.head(f"{FILESET}/-/a").headers["ETag"]
    assert client.delete(f"{FILESET}/-/a", headers={"If-Match": tag}).json["size"] == 5
    assert client.get(f"{FILESET}/-/a").status_code == 404


def test_a_file_is_read_only_if_it_is_the_one_that_is_wanted(client: FlaskClient) -> None:
    client.put(f"{FILESET}/-/a", data=DIGITS)
    tag = client.head(f"{FILESET}/-/a").headers["ETag"]

    for headers in ({}, {"Range": "bytes=0-1"}):
        assert client.get(f"{FILESET}/-/a", headers={"If-Match": '"nope"', **headers}).status_code == 412
        assert client.get(f"{FILESET}/-/a", headers={"If-Match": tag, **headers}).status_code in {200, 206}


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
@pytest.mark.parametrize("value", ["unquoted", '"open', "", "*, *"])
def test_a_malformed_condition_is_refused_by_name(
    client: FlaskClient, method: str, header: str, value: str
) -> None:
    client.put(f"{FILESET}/-/a", data=DIGITS)

    response = client.open(f"{FILESET}/-/a", method=method, data=b"x", headers={header: value})

    assert (response.status_code, header in response.json["detail"]) == (400, True)
    assert client.get(f"{FILESET}/-/a").data == DIGITS


class Together(io.RawIOBase):
    """A body whose bytes come when as many others have come so far."""

    def __init__(self, barrier: Barrier, content: bytes) -> None:
        self._barrier, self._parts = barrier, iter([content, b""])

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        part = next(self._parts)
        if part:
            self._barrier.wait(DEADLINE_S)
        return part


@pytest.mark.parametrize("condition", ["If-None-Match", "If-Match"])
def test_of_many_who_want_to_be_the_first_exactly_one_is(app: Flask, condition: str) -> None:
    creators = 6
    barrier = Barrier(creators)
    value = "*"
    if condition == "If-Match":
        app.test_client().put(f"{FILESET}/-/a", data=b"old")
        value = app.test_client().head(f"{FILESET}/-/a").headers["ETag"]

    def put(number: int) -> int:
        body = Together(barrier, f"{number:02}".encode())
        return (
            app.test_client()
            .put(
                f"{FILESET}/-/a",
                headers={condition: value},
                environ_overrides={"wsgi.input": body, "wsgi.input_terminated": True},
            )
            .status_code
        )

    with ThreadPoolExecutor(creators) as pool:
        statuses = list(pool.map(put, range(creators)))

    assert sorted(statuses) == [200] + [412] * (creators - 1)
    assert app.test_client().get(f"{FILESET}/-/a").data == f"{statuses.index(200):02}".encode()


def test_the_rest_of_a_file_does_not_replace_the_file(client: FlaskClient) -> None:
    """What `curl -C` sends to go on with an upload."""
    client.put(f"{FILESET}/-/a", data=b"ABCDEFGHIJ")

    response = client.put(f"{FILESET}/-/a", data=b"EFGHIJ", headers={"Content-Range": "bytes 4-9/10"})

    assert (response.status_code, "Content-Range" in response.json["detail"]) == (400, True)
    assert client.get(f"{FILESET}/-/a").data == b"ABCDEFGHIJ"


# --- Results of jobs


def test_a_result_can_be_fetched_in_parts_and_only_if_it_has_changed(
    client: FlaskClient, session: Session, fileset: Fileset
) -> None:
    job = make_job(session, session.get_one(Workspace, fileset.workspace_id))
    job.fileset = "data"
    note(job, {"model": f"/data#{folder_of(job)}/model"})
    session.commit()
    client.put(f"{FILESET}/-/{folder_of(job)}/model", data=DIGITS)
    path = f"/apis/jobs/v2/workspaces/ml-team/jobs/{job.name}/results/model/download"

    def get(**headers: str) -> TestResponse:
        return client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    whole = get()
    assert (whole.status_code, whole.data, whole.headers["Accept-Ranges"]) == (200, DIGITS, "bytes")
    tag = whole.headers["ETag"]
    part = get(Range="bytes=2-5", If_Range=tag)
    assert (part.status_code, part.data, part.headers["Content-Range"]) == (206, b"2345", "bytes 2-5/10")
    assert part.headers["Content-Disposition"] == "attachment; filename=model"
    assert get(Range="bytes=10-").status_code == 416
    assert get(If_None_Match=tag).status_code == 304
    assert get(If_Match='"other"').status_code == 412
