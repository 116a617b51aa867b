import io
import os
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from app import clock
from app.context import Context
from app.db import session_scope
from app.lifecycle import WorkspaceState
from app.models import Fileset, Workspace
from tests.factories import make_fileset, make_workspace
from tests.support.both_stores import s3, settings

__all__ = ["s3", "settings"]

FILESET = "/apis/files/v2/workspaces/ml-team/filesets/data"
DIGITS = b"0123456789"


@pytest.fixture(autouse=True)
def fileset(session: Session) -> Fileset:
    fileset = make_fileset(session, make_workspace(session, "ml-team"), "data")
    session.commit()
    return fileset


def stored(client: FlaskClient) -> list[str]:
    return [file["path"] for file in client.get(f"{FILESET}/files").json["data"]]


def staged(context: Context) -> list[str]:
    if context.settings.storage_url:
        return [upload["Key"] for upload in context.store._tree._bucket.uploads("")]
    return [
        path.name for path in (context.settings.data_dir / "blobs" / "staging").rglob("*") if path.is_file()
    ]


# --- Uploads


def test_an_uploaded_file_is_described_and_can_be_downloaded(client: FlaskClient) -> None:
    response = client.put(f"{FILESET}/-/raw/a b.txt", data=DIGITS, content_type="text/plain")

    assert response.status_code == 200
    assert response.json == {
        "file_ref": "ml-team/data#raw/a b.txt",
        "file_url": f"{FILESET}/-/raw/a%20b.txt",
        "path": "raw/a b.txt",
        "size": 10,
        "cache_status": None,
    }
    assert client.get(response.json["file_url"]).data == DIGITS


def test_an_encoded_slash_separates_directories(client: FlaskClient) -> None:
    client.put(f"{FILESET}/-/raw%2Fa.txt", data=DIGITS)

    assert stored(client) == ["raw/a.txt"]
    assert client.get(f"{FILESET}/-/raw%2Fa.txt").data == DIGITS


def test_a_form_is_taken_apart(client: FlaskClient) -> None:
    client.put(f"{FILESET}/-/a", data={"file": (io.BytesIO(DIGITS), "local.txt")})

    assert client.get(f"{FILESET}/-/a").data == DIGITS


def test_a_form_without_the_field_is_refused(client: FlaskClient) -> None:
    response = client.put(f"{FILESET}/-/a", data={"content": (io.BytesIO(DIGITS), "local.txt")})

    assert response.status_code == 400
    assert "'file'" in response.json["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x\r\nContent-Disposition: form-data",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n0123',
        b"--x\r\nContent-Type: text/plain\r\n\r\n0123\r\n--x--\r\n",
    ],
)
def test_a_form_that_breaks_off_stores_nothing(client: FlaskClient, context: Context, body: bytes) -> None:
    response = client.put(f"{FILESET}/-/a", data=body, content_type="multipart/form-data; boundary=x")

    assert (response.status_code, stored(client), staged(context)) == (400, [], [])


def test_a_chunked_upload_is_taken_to_its_end(client: FlaskClient) -> None:
    response = client.put(
        f"{FILESET}/-/a", input_stream=io.BytesIO(DIGITS), environ_overrides={"wsgi.input_terminated": True}
    )

    assert response.json["size"] == 10


@pytest.mark.parametrize("terminated", [True, False])
def test_an_upload_shorter_than_announced_stores_nothing(
    client: FlaskClient,
    context: Context,
    terminated: bool,
) -> None:
    client.put(f"{FILESET}/-/a", data=b"old")

    response = client.put(
        f"{FILESET}/-/a",
        input_stream=io.BytesIO(DIGITS),
        environ_overrides={"CONTENT_LENGTH": "99", "wsgi.input_terminated": terminated},
    )

    assert response.status_code == 400
    assert response.json["detail"] == "The upload broke off after at least 10 bytes; nothing was stored."
    assert client.get(f"{FILESET}/-/a").data == b"old"
    assert staged(context) == []


def test_an_empty_file_is_a_file(client: FlaskClient) -> None:
    assert client.put(f"{FILESET}/-/empty").json["size"] == 0
    assert client.get(f"{FILESET}/-/empty").data == b""


@pytest.mark.parametrize("path", ["a", "a/b/c"])
def test_a_file_and_a_directory_cannot_share_a_path(client: FlaskClient, path: str) -> None:
    client.put(f"{FILESET}/-/a/b", data=b"x")

    response = client.put(f"{FILESET}/-/{path}", data=b"y")

    assert response.status_code == 409
    assert stored(client) == ["a/b"]


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "..",
        "./a",
        "a/.",
        "a//b",
        "a/",
        "a\tb",
        "a\nb",
        "a\n",
        "\r\n",
        "a\x7f",
        "a\ufffe",
        "a\uffff",
        "a\x1b[31mb",
        "a\x9bb",
        "report\u202efdp.exe",
        "\u200fa",
        "\\\\server\\share",
        "C:\\a",
        "c:a",
        "..\\a",
        "a\\..\\..\\b",
        "a/..\\b",
        "a\\..",
        "x" * 256,
        "/".join(["x" * 200] * 6),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_paths_that_could_mislead_are_refused(client: FlaskClient, path: str, method: str) -> None:
    response = client.open(f"{FILESET}/-/{quote(path, safe='')}", method=method)

    assert response.status_code == 400
    assert "path" in response.json["detail"].lower()


@pytest.mark.parametrize("path", ["a\\b", "CON", "a/10:30.log", "..a", "a..", "dev-disk\\x2dlabel", "\u05d0"])
def test_a_path_that_is_only_unusual_is_a_path(client: FlaskClient, path: str) -> None:
    """A client on Windows may not be able to store it, but stays in its directory."""
    assert client.put(f"{FILESET}/-/{quote(path)}", data=b"x").status_code == 200
    assert stored(client) == [path]


def test_names_in_the_store_that_no_request_can_carry_do_not_break_the_list(
    client: FlaskClient, context: Context, fileset: Fileset
) -> None:
    """They come with a restored backup, or from other programs. The list broke off where the first of them stood."""
    if context.settings.storage_url:
        pytest.skip("a bucket has no such names")
    for name in ("a", "z"):
        client.put(f"{FILESET}/-/{name}", data=b"x")
    directory = context.settings.data_dir / "blobs" / "files" / str(fileset.workspace_id) / str(fileset.id)
    for unfit in (b"m\xff\xfe", b"m\nm", b"m\x1b[31m"):
        Path(os.fsdecode(os.fsencode(directory) + b"/" + unfit)).write_bytes(b"x")

    assert stored(client) == ["a", "z"]
    assert client.delete(FILESET).status_code == 200
    assert not directory.exists()


def test_a_path_that_is_not_utf_8_is_refused(client: FlaskClient) -> None:
    assert client.put(f"{FILESET}/-/%ff", data=b"x").status_code == 400


def test_an_absolute_path_does_not_leave_the_fileset(client: FlaskClient) -> None:
    response = client.put(f"{FILESET}/-/%2Fetc%2Fpasswd", data=b"x")

    assert response.status_code == 400
    assert stored(client) == []


def test_an_upload_into_a_missing_fileset_is_not_found_and_stores_nothing(
    client: FlaskClient, context: Context
) -> None:
    response = client.put(FILESET.replace("data", "nope") + "/-/a", data=DIGITS)

    assert response.json == {"detail": "Fileset 'nope' not found in workspace 'ml-team'"}
    assert context.store.workspace_ids() == set()


class Interrupted(io.RawIOBase):
    """An upload during which something else happens."""

    def __init__(self, event: Iterator[None], content: bytes) -> None:
        self.content = iter([content, b""])
        self.event = event

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        next(self.event, None)
        return next(self.content)


def upload(client: FlaskClient, event: Iterator[None], content: bytes = DIGITS) -> int:
    return client.put(
        f"{FILESET}/-/late",
        environ_overrides={"wsgi.input": Interrupted(event, content), "wsgi.input_terminated": True},
    ).status_code


def test_an_upload_that_outlives_its_workspace_is_refused_and_leaves_nothing(
    client: FlaskClient, context: Context, fileset: Fileset
) -> None:
    def workspace_deletion() -> Iterator[None]:
        with session_scope(context.sessions) as session:
            session.get_one(Workspace, fileset.workspace_id).state = WorkspaceState.DELETING
        yield

    assert upload(client, workspace_deletion()) == 404
    assert context.store.size(fileset.workspace_id) == 0
    assert staged(context) == []


def test_an_upload_that_outlives_its_fileset_does_not_land_in_the_successor(
    client: FlaskClient, context: Context, fileset: Fileset
) -> None:
    def replacement() -> Iterator[None]:
        assert client.delete(FILESET).status_code == 200
        client.post("/apis/files/v2/workspaces/ml-team/filesets", json={"name": "data"})
        yield

    assert upload(client, replacement()) == 404
    assert context.store.size(fileset.workspace_id) == 0
    assert staged(context) == []


def test_an_upload_that_outlives_its_fileset_is_told_so_however_much_is_still_to_come(
    client: FlaskClient, context: Context, fileset: Fileset
) -> None:
    def deletion() -> Iterator[None]:
        assert client.delete(FILESET).status_code == 200
        yield

    assert upload(client, deletion(), content=b"x" * 9_000_000) == 404
    assert context.store.size(fileset.workspace_id) == 0
    assert staged(context) == []


def test_an_upload_that_was_collected_can_be_sent_again(client: FlaskClient, context: Context) -> None:
    def collection() -> Iterator[None]:
        context.store.collect_staged_uploads(clock.now() + timedelta(hours=1))
        yield

    assert upload(client, collection(), content=b"x" * 9_000_000) == 503
    assert stored(client) == []


# --- Downloads


def test_a_download_announces_what_it_sends(client: FlaskClient) -> None:
    client.put(f"{FILESET}/-/a", data=DIGITS, content_type="text/html")

    response = client.get(f"{FILESET}/-/a")

    assert response.status_code == 200
    assert {name: response.headers[name] for name in ("Content-Type", "Content-Length", "Accept-Ranges")} == {
        "Content-Type": "application/octet-stream",
        "Content-Length": "10",
        "Accept-Ranges": "bytes",
    }
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_head_answers_the_headers_alone(client: FlaskClient) -> None:
    client.put(f"{FILESET}/-/a", data=DIGITS)

    response = client.head(f"{FILESET}/-/a")

    assert (response.status_code, response.content_length, response.data) == (200, 10, b"")
    assert client.head(f"{FILESET}/-/nope").status_code == 404
    ranged = client.head(f"{FILESET}/-/a", headers={"Range": "bytes=2-5"})
    assert (ranged.status_code, ranged.content_length) == (200, 10)
    assert ranged.headers["ETag"] == client.get(f"{FILESET}/-/a").headers["ETag"]


@pytest.mark.parametrize("path", ["nope", "a", "a/b/c"])
def test_what_is_not_a_file_is_not_found(client: FlaskClient, path: str) -> None:
    client.put(f"{FILESET}/-/a/b", data=b"x")

    for method in ("GET", "DELETE"):
        response = client.open(f"{FILESET}/-/{path}", method=method)
        assert response.status_code == 404
        assert response.json == {"detail": f"File '{path}' not found in fileset 'ml-team/data'"}


# --- Lists and deletion


def test_a_list_is_a_transfer_as_a_file_is(client: FlaskClient) -> None:
    """It is sent as it is read, for as long as the client takes."""
    client.put(f"{FILESET}/-/a", data=b"x")
    client.application.extensions["service"].transfers.limit = 0

    assert client.get(f"{FILESET}/files").status_code == 503
    assert client.get(f"{FILESET}").status_code == 200


def test_files_are_listed_from_a_file_or_a_directory(client: FlaskClient) -> None:
    for path in ("a/b", "a/c/d", "ab"):
        client.put(f"{FILESET}/-/{path}", data=b"x")

    def listed(path: str) -> list[str]:
        data = client.get(f"{FILESET}/files", query_string={"path": path}).json["data"]
        return [file["path"] for file in data]

    assert listed("") == ["a/b", "a/c/d", "ab"]
    assert listed("a") == listed("a/") == ["a/b", "a/c/d"]
    assert listed("ab") == ["ab"]
    assert listed("nope") == []


@pytest.mark.parametrize("number", range(6))
def test_a_list_in_pieces_is_one_list(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("app.api.files.files._FILES_AT_ONCE", 2)
    names = [f"{each}" for each in range(number)]
    for name in names:
        client.put(f"{FILESET}/-/{name}", data=b"x")

    assert stored(client) == names


def test_a_long_list_takes_little_memory(client: FlaskClient, context: Context, fileset: Fileset) -> None:
    if context.settings.storage_url:
        pytest.skip("a bucket is listed page by page; making so many files there would take long")
    client.put(f"{FILESET}/-/0", data=b"x")
    directory = context.settings.data_dir / "blobs" / "files" / str(fileset.workspace_id) / str(fileset.id)
    for number in range(1, 10_000):
        (directory / str(number)).touch()
    tracemalloc.start()

    answer = client.get(f"{FILESET}/files", buffered=False)
    length = sum(map(len, answer.iter_encoded()))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert length > 1_000_000
    assert peak < 3_000_000  # 300 bytes for each; as one document it was 1700


def test_no_file_waits_for_a_cache(client: FlaskClient) -> None:
    client.put(f"{FILESET}/-/a", data=b"x")

    for asked in ("", "?include_cache_status=true", "?include_cache_status=false"):
        [file] = client.get(f"{FILESET}/files{asked}").json["data"]
        assert file["cache_status"] == "not_cacheable"


def test_a_list_does_not_climb_out(client: FlaskClient) -> None:
    assert client.get(f"{FILESET}/files?path=../..").status_code == 400


def test_a_deleted_file_is_described_a_last_time(client: FlaskClient) -> None:
    shown = client.put(f"{FILESET}/-/a/b", data=DIGITS).json
    client.put(f"{FILESET}/-/c", data=b"stays")

    response = client.delete(f"{FILESET}/-/a/b", content_type="application/json")

    assert (response.status_code, response.json) == (200, shown)
    assert stored(client) == ["c"]
