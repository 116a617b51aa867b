"""The log of a fileset: records of OpenTelemetry in, pages of lines out."""

import gzip
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.cleanup.engine import run_slice
from app.cleanup.preview import preview
from app.cleanup.requests import request_deletion
from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.lifecycle import JobStatus, WorkspaceState
from app.models import Fileset, Job, JobLog, Workspace
from app.services import filesets, job_removal
from app.services.filesets import SERVICE_SOURCE
from app.services.logs import removal
from app.services.reports import otlp
from app.services.reports.log_lines import ReportedLine, Source, append
from app.services.reports.otlp import LONGEST_BYTES
from tests.factories import make_fileset, make_job, make_job_log, make_workspace, rows_of
from tests.support.actors import trusted
from tests.support.locks import has_to_wait, meanwhile

FILESETS = "/apis/files/v2/workspaces/ml-team/filesets"
JOBS = "/apis/jobs/v2/workspaces/ml-team/jobs"
NAMES = {"job": "train", "job_attempt": "1", "job_step": "first", "job_task": "main"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Logs are removed in chunks of two lines."""
    return settings.model_copy(update={"chunk_size": 2})


@pytest.fixture(autouse=True)
def workspace(session: Session) -> Workspace:
    workspace = make_workspace(session, "ml-team")
    session.commit()
    return workspace


@pytest.fixture(autouse=True)
def fileset(session: Session, workspace: Workspace) -> Fileset:
    fileset = make_fileset(session, workspace, "data")
    make_fileset(session, workspace, "other")
    session.commit()
    return fileset


def attributes(**names: str) -> dict[str, Any]:
    return {"attributes": [{"key": key, "value": {"stringValue": text}} for key, text in names.items()]}


def logs(*texts: str, time: str = "1700000000123456789", **names: str) -> dict[str, Any]:
    """What one resource has printed."""
    records = [{"timeUnixNano": time, "body": {"stringValue": text}} for text in texts]
    return {"resource": attributes(**{**NAMES, **names}), "scopeLogs": [{"logRecords": records}]}


def send(client: FlaskClient, *resources: dict[str, Any], fileset: str = "data", **query: str) -> Any:
    answer = client.post(
        f"{FILESETS}/{fileset}/otlp/v1/logs", json={"resourceLogs": resources}, query_string=query
    )
    assert answer.status_code == 200, answer.text
    return answer.json["partialSuccess"]


def post(client: FlaskClient, data: bytes, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"{FILESETS}/data/otlp/v1/logs", data=data, headers=named)


def query(client: FlaskClient, fileset: str = "data", **body: Any) -> Any:
    answer = client.post(f"{FILESETS}/{fileset}/otlp/v1/logs/query", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json


def messages(page: Any) -> list[str]:
    return [line["message"] for line in page["data"]]


# --- what is stored


def test_a_record_is_a_line_with_every_key_of_the_contract(client: FlaskClient) -> None:
    assert send(client, logs("hello")) is None

    assert query(client) == {
        "data": [
            {
                "timestamp": "2023-11-14T22:13:20.123456Z",
                "job": "train",
                "job_step": "first",
                "job_task": "main",
                "message": "hello",
            }
        ],
        "total": 1,
        "next_page": None,
        "prev_page": None,
    }
    assert query(client, "other")["data"] == []


VALUES = [
    ({"stringValue": "a\0b"}, "ab"),
    ({"boolValue": True}, "true"),
    ({"intValue": "42"}, "42"),
    ({"doubleValue": 0.5}, "0.5"),
    ({"bytesValue": "AAE="}, "AAE="),
    ({"arrayValue": {"values": [{"stringValue": "ä"}, {"boolValue": False}]}}, '["ä", false]'),
    ({"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}}, '{"k": "v"}'),
    ({}, ""),
]


@pytest.mark.parametrize(("value", "text"), VALUES)
@pytest.mark.parametrize("kind", ["json", "protobuf"])
def test_a_body_of_any_type_is_text_in_both_forms_of_the_protocol(
    client: FlaskClient, kind: str, value: dict[str, Any], text: str
) -> None:
    record = {"timeUnixNano": "1700000000000000000", "severityNumber": 9, "traceId": "0" * 32, "body": value}
    body = {"resourceLogs": [{**logs(), "scopeLogs": [{"scope": {"name": "x"}, "logRecords": [record]}]}]}
    if kind == "json":
        answer = post(client, json.dumps(body).encode(), Content_Type="application/json")
    else:
        message = ParseDict(body, ExportLogsServiceRequest()).SerializeToString()
        answer = post(client, message, Content_Type="application/x-protobuf")

    assert (answer.status_code, answer.json) == (200, {"partialSuccess": None})
    [line] = query(client)["data"]
    assert (line["message"], line["timestamp"]) == (text, "2023-11-14T22:13:20.000000Z")


@pytest.mark.parametrize(
    ("record", "year"),
    [
        ({"timeUnixNano": 0, "observedTimeUnixNano": 10**18}, 2001),
        ({"timeUnixNano": None}, datetime.now(UTC).year),
    ],
)
def test_a_record_without_a_time_has_that_of_its_arrival(
    client: FlaskClient, record: dict[str, Any], year: int
) -> None:
    send(client, {**logs(), "scopeLogs": [{"logRecords": [record]}]})

    [line] = query(client)["data"]
    assert int(line["timestamp"][:4]) - year in (0, 1), "the year may end meanwhile"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"resourceLogs": None},
        {"resourceLogs": []},
        {"resourceLogs": [{"resource": None, "scopeLogs": None}]},
        {"resourceLogs": [{"scopeLogs": [{"logRecords": None}]}], "certainlyUnknown": 1},
    ],
)
def test_a_request_without_records_stores_nothing(client: FlaskClient, body: dict[str, Any]) -> None:
    answer = client.post(f"{FILESETS}/data/otlp/v1/logs", json=body)

    assert (answer.status_code, answer.json) == (200, {"partialSuccess": None})
    assert query(client)["total"] == 0


def test_records_that_cannot_be_stored_are_counted_and_the_others_stored(client: FlaskClient) -> None:
    rejected = send(
        client,
        logs("kept"),
        logs("lost", "lost", job="", job_task=""),
        {"scopeLogs": [{"logRecords": [{"body": {"stringValue": "lost"}}]}]},
        logs("lost", job_step="s" * 256),
        logs("x" * (LONGEST_BYTES + 1)),
        logs("lost", time="9" * 30),
        logs("lost", time="253402300799000000000"),
        logs("lost", time="-62135596800000000000"),
        logs("x" * LONGEST_BYTES),
    )

    assert rejected["rejectedLogRecords"] == 8
    assert rejected["errorMessage"].startswith("8 of 10 log records were not stored: ")
    for reason in (
        "missing resource attributes: job, job_task;",
        "missing resource attributes: job, job_attempt, job_step, job_task;",
        "resource attributes of more than 255 characters: job_step",
        "a text of more than 65536 bytes",
        "a time that is out of range",
    ):
        assert reason in rejected["errorMessage"]
    assert messages(query(client)) == ["kept", "x" * LONGEST_BYTES]


def test_a_request_has_so_many_records_at_most(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "MOST_RECORDS", 3)

    rejected = send(client, logs("a", "b"), logs("c", "d", "e"))

    assert rejected["rejectedLogRecords"] == 2
    assert messages(query(client)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"{", {"Content_Type": "application/json"}, 400, "Invalid JSON format"),
        (b"[]", {"Content_Type": "application/json"}, 400, "Invalid JSON format: the body: "),
        (b"[" * 10_000, {"Content_Type": "application/json"}, 400, "Invalid JSON format"),
        (b'{"a": 1' + b"0" * 5000 + b"}", {"Content_Type": "application/json"}, 400, "Invalid JSON format"),
        (b'{"resourceLogs": 7}', {}, 400, "Invalid JSON format: resourceLogs: "),
        (
            b'{"resourceLogs": [{"resource": {"attributes": [{"key": "job", "value": "plain"}]}}]}',
            {},
            400,
            "Invalid JSON format: value",
        ),
        (b"\xff\xff", {"Content_Type": "application/x-protobuf"}, 400, "Invalid protobuf format"),
        (b"{}", {"Content_Encoding": "br"}, 400, "Content-Encoding 'br' is not understood"),
        (b"{}", {"Content_Encoding": "gzip"}, 400, "is not gzipped"),
        (gzip.compress(b"{}" * 100, mtime=0)[:-9], {"Content_Encoding": "gzip"}, 400, "broke off"),
        (gzip.compress(b"{}", mtime=0) * 2, {"Content_Encoding": "gzip"}, 400, "goes on behind its end"),
        (
            gzip.compress(b" " * 10_000_000, mtime=0),
            {"Content_Encoding": "gzip"},
            413,
            "unpacked body is larger",
        ),
    ],
)
def test_what_is_no_such_request_is_refused(
    client: FlaskClient, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    answer = post(client, body, **headers)

    assert answer.status_code == status
    assert words in answer.json["detail"]
    assert query(client)["total"] == 0


def test_a_small_body_is_not_unpacked_into_a_huge_one(client: FlaskClient) -> None:
    body = gzip.compress(b" " * 100_000_000)

    tracemalloc.start()
    answer = post(client, body, Content_Encoding="gzip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert answer.status_code == 413
    assert peak < 16 * 1024 * 1024


def packed(tag: int, message: bytes) -> bytes:
    """A message in a field of another one, whose number and type are the tag."""
    size, length = len(message), b""
    while size > 127:
        length, size = length + bytes([size % 128 + 128]), size // 128
    return bytes([tag]) + length + bytes([size]) + message


MANY = otlp.MOST_PARTS + 1
MILLIONS = {
    "resources, JSON": b'{"resourceLogs":[%s]}' % b",".join([b"{}"] * MANY),
    "records, JSON": b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%s]}]}]}' % b",".join([b"{}"] * MANY),
    "attributes, JSON": b'{"resourceLogs":[{"resource":{"attributes":[%s]}}]}'
    % b",".join([b'{"key":""}'] * MANY),
    "resources, protobuf": packed(0x0A, b"") * MANY,
    "scopes, protobuf": packed(0x0A, packed(0x12, b"") * MANY),
    "records, protobuf": packed(0x0A, packed(0x12, packed(0x12, b"") * MANY)),
    "attributes, protobuf": packed(0x0A, packed(0x0A, packed(0x0A, b"") * MANY)),
}


@pytest.mark.parametrize("what", MILLIONS)
def test_a_small_body_is_not_read_as_hundreds_of_thousands_of_parts(client: FlaskClient, what: str) -> None:
    """Once it is read each takes hundreds of bytes in memory, and two or three in the body."""
    form = "x-protobuf" if "protobuf" in what else "json"

    tracemalloc.start()
    answer = post(client, MILLIONS[what], Content_Type=f"application/{form}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (answer.status_code, "send several" in answer.json["detail"]) == (413, True)
    assert peak < 64 * 1024 * 1024


def test_a_value_of_a_record_is_not_unpacked_into_a_huge_one(client: FlaskClient) -> None:
    names = logs()["resource"]
    resource = ParseDict({"resourceLogs": [{"resource": names}]}, ExportLogsServiceRequest())
    nothings = packed(0x2A, packed(0x0A, b"") * MANY)  # an array of empty values
    record = packed(0x12, packed(0x12, packed(0x2A, nothings)))
    body = packed(0x0A, packed(0x0A, resource.resource_logs[0].resource.SerializeToString()) + record)

    tracemalloc.start()
    answer = post(client, body, Content_Type="application/x-protobuf")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert "a text of more than 65536 bytes" in answer.json["partialSuccess"]["errorMessage"]
    assert peak < 16 * 1024 * 1024


def test_a_gzipped_request_is_unpacked(client: FlaskClient) -> None:
    body = json.dumps({"resourceLogs": [logs("hello")]}).encode()

    assert post(client, gzip.compress(body), Content_Encoding="gzip").status_code == 200
    assert messages(query(client)) == ["hello"]


def test_lines_of_a_fileset_that_a_service_keeps_come_from_services_alone(
    client: FlaskClient, session: Session, fileset: Fileset
) -> None:
    fileset.custom_fields = {SERVICE_SOURCE: "a service"}
    session.commit()

    answer = client.post(f"{FILESETS}/data/otlp/v1/logs", json={"resourceLogs": [logs("hello")]})

    assert answer.status_code == 403
    assert query(client)["total"] == 0


@pytest.mark.parametrize("route", ["", "/query"])
def test_without_the_fileset_there_is_no_log(
    client: FlaskClient, session: Session, workspace: Workspace, route: str
) -> None:
    missing = client.post(f"{FILESETS}/nope/otlp/v1/logs{route}", json={})
    assert (missing.status_code, missing.json["detail"]) == (
        404,
        "Fileset 'nope' not found in workspace 'ml-team'",
    )
    workspace.state = WorkspaceState.DELETING
    session.commit()
    gone = client.post(f"{FILESETS}/data/otlp/v1/logs{route}", json={})
    assert (gone.status_code, gone.json["detail"]) == (404, "Workspace 'ml-team' not found")


# --- what is read


def test_each_folder_has_a_log_of_its_own(client: FlaskClient) -> None:
    send(client, logs("root"))
    send(client, logs("folder"), artifact_base_path="jobs/train/")

    assert messages(query(client)) == ["root"]
    assert messages(query(client, artifact_base_path="jobs/train")) == ["folder"]
    assert messages(query(client, artifact_base_path="jobs")) == []


@pytest.mark.parametrize("path", ["..", "a/../../b", "/etc", "a//b", "./a", "a\x01", "/"])
def test_a_folder_outside_of_the_fileset_is_refused(client: FlaskClient, path: str) -> None:
    stored = client.post(
        f"{FILESETS}/data/otlp/v1/logs",
        json={"resourceLogs": [logs("x")]},
        query_string={"artifact_base_path": path},
    )
    read = client.post(f"{FILESETS}/data/otlp/v1/logs/query", json={"artifact_base_path": path})

    assert (stored.status_code, read.status_code) == (400, 400)


def test_filters_are_compared_with_the_names_of_what_printed_the_line(client: FlaskClient) -> None:
    attempt = str(uuid7())
    send(
        client,
        logs("a"),
        logs("b", job="other"),
        logs("c", job_attempt=attempt),
        logs("d", job_step="second"),
        logs("e", job_task="worker-1"),
    )

    def found(**filters: str) -> str:
        return "".join(messages(query(client, filters=filters)))

    assert found() == "abcde"
    assert (found(job="train"), found(job="other"), found(job="nope")) == ("acde", "b", "")
    assert (found(job_attempt="1"), found(job_attempt=attempt.upper())) == ("abde", "c")
    assert (found(job_step="second"), found(job_task="worker-1")) == ("d", "e")
    assert found(job="train", job_step="first", job_attempt="1") == "ae"


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"filters": {"level": "x"}}, 400, "Invalid filter: 'level' is none of job, job_attempt"),
        ({"tail": 1, "limit": 1}, 400, "tail cannot be combined with limit; tail controls the returned"),
        ({"tail": 1, "page_cursor": "after.x"}, 400, "tail cannot be combined with page_cursor; pass the"),
        ({"page_cursor": "nope"}, 400, "Invalid page cursor"),
        ({"limit": 0}, 422, "greater than 0"),
        ({"limit": 10_001}, 422, "less than or equal to 10000"),
        ({"tail": 10_001}, 422, "less than or equal to 10000"),
        ({"certainly_unknown": 1}, 422, "Extra inputs are not permitted"),
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(
    client: FlaskClient, body: dict[str, Any], status: int, detail: str
) -> None:
    answer = client.post(f"{FILESETS}/data/otlp/v1/logs/query", json=body)

    assert answer.status_code == status
    assert detail in str(answer.json["detail"])


def test_pages_lead_from_one_end_of_a_log_to_the_other_and_the_tail_leads_back(client: FlaskClient) -> None:
    send(client, logs(*"ab"))
    send(client, logs(*"cde"))
    nothing: dict[str, Any] = {"filters": None, "limit": None, "tail": None, "page_cursor": None}

    pages = [query(client, limit=2)]
    while cursor := pages[-1]["next_page"]:
        pages.append(query(client, limit=2, page_cursor=cursor))
    tail = query(client, tail=2)

    assert [messages(page) for page in pages] == [["a", "b"], ["c", "d"], ["e"]]
    assert {page["total"] for page in pages} == {5}
    assert (messages(tail), tail["next_page"]) == (["d", "e"], None)
    assert messages(query(client, page_cursor=tail["prev_page"])) == ["a", "b", "c"]
    assert messages(query(client, artifact_base_path=None, **nothing)) == [*"abcde"]


# --- jobs


@pytest.fixture
def job(session: Session, workspace: Workspace) -> Job:
    """A job that leaves what it has in a fileset of others."""
    job = make_job(session, workspace, "train", JobStatus.COMPLETED, output_location="data")
    session.commit()
    return job


@pytest.fixture
def owner(session: Session, workspace: Workspace) -> Job:
    """A job with a fileset of its own."""
    owner = make_job(session, workspace, "alone", JobStatus.COMPLETED)
    make_fileset(session, workspace, owner.fileset)
    session.commit()
    return owner


def lines(session: Session) -> int:
    session.rollback()
    return session.scalar(select(func.count()).select_from(JobLog)) or 0


def test_the_log_of_a_job_and_that_of_its_folder_agree(
    client: FlaskClient, session: Session, job: Job, fileset: Fileset
) -> None:
    where = {"fileset_id": fileset.id, "base_path": "jobs/train", "job": "train"}
    make_job_log(session, job, "printed", step="first", **where)
    session.commit()
    send(client, logs("sent", job_attempt=str(job.attempt_id)), artifact_base_path="jobs/train")
    send(client, logs("elsewhere", job_attempt=str(job.attempt_id)))
    send(client, logs("not its own", job="nope"), artifact_base_path="jobs/train")

    of_job = client.get(f"{JOBS}/train/logs").json
    of_folder = query(client, artifact_base_path="jobs/train", filters={"job": "train"})

    assert messages(of_job) == ["printed", "sent"]
    assert of_job == of_folder


def test_the_root_of_a_jobs_own_fileset_has_the_log_of_its_current_attempt_and_of_no_other_job(
    client: FlaskClient, session: Session, owner: Job
) -> None:
    earlier = uuid7()
    make_job_log(session, owner, "printed", step="first")
    make_job_log(session, owner, "before", step="first", attempt_id=earlier)
    session.commit()
    own, attempt = owner.fileset, str(owner.attempt_id)

    assert send(client, logs("sent", job="alone", job_attempt=attempt), fileset=own) is None
    rejected = send(client, logs("not its own"), fileset=own)
    assert "the fileset 'job-fileset-alone' goes with job 'alone'" in rejected["errorMessage"]
    assert send(client, logs("beside"), fileset=own, artifact_base_path="notes") is None

    assert query(client, own) == client.get(f"{JOBS}/alone/logs").json
    assert messages(query(client, own)) == ["printed", "sent"]
    assert messages(query(client, own, filters={"job_attempt": str(earlier)})) == ["before"]
    assert messages(query(client, own, filters={"job": "nope"})) == []
    assert messages(query(client, own, artifact_base_path="notes")) == ["beside"]


def test_a_deleted_job_leaves_its_lines_in_the_fileset_that_stays_and_takes_those_of_its_own(
    client: FlaskClient, session: Session, job: Job, owner: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_AT_ONCE_LOCKED", 1)  # nearly all have gone before
    send(client, logs("stays", job_attempt=str(job.attempt_id)), artifact_base_path="jobs/train")
    send(client, logs("goes", job="alone"), fileset=owner.fileset)
    send(client, logs(*"goes"), fileset=owner.fileset, artifact_base_path="notes")
    assert lines(session) == 6

    for name in ("train", "alone"):
        assert client.delete(f"{JOBS}/{name}").status_code == 204

    assert messages(query(client, artifact_base_path="jobs/train")) == ["stays"]
    assert lines(session) == 1


def test_a_log_goes_with_its_fileset_and_no_other_does(
    client: FlaskClient, session: Session, job: Job
) -> None:
    send(client, logs(*"abc"))
    send(client, logs(*"de", job_attempt=str(job.attempt_id)), artifact_base_path="jobs/train")
    send(client, logs("stays"), fileset="other")

    assert client.delete(f"{FILESETS}/data").status_code == 200

    assert lines(session) == 1
    assert messages(query(client, "other")) == ["stays"]


def test_a_log_that_is_too_long_for_one_request_goes_with_those_that_follow(
    client: FlaskClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(client, logs(*"abc"))
    with monkeypatch.context() as hurry:
        hurry.setattr(filesets, "_PURGE_S", 0)
        refused = client.delete(f"{FILESETS}/data")

    assert (refused.status_code, lines(session)) == (503, 1)
    assert "more lines of its log remain" in refused.json["detail"]
    assert client.delete(f"{FILESETS}/data").status_code == 200
    assert lines(session) == 0


@pytest.mark.parametrize("folder", ["", "notes"])
def test_a_job_whose_log_is_too_long_for_one_request_goes_with_the_messages_that_follow(
    client: FlaskClient,
    context: Context,
    session: Session,
    owner: Job,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
) -> None:
    """Clients may add to it without a limit."""
    monkeypatch.setattr(job_removal, "_LINES_S", 0)
    send(client, logs(*"abcde", job="alone"), fileset=owner.fileset, artifact_base_path=folder)

    assert client.delete(f"{JOBS}/alone").status_code == 204
    assert (client.get(f"{JOBS}/alone").status_code, lines(session)) == (200, 3)
    while not job_removal.remove_ended(context, owner.id):
        pass

    assert client.get(f"{JOBS}/alone").status_code == 404
    assert lines(session) == 0


def test_a_workspace_goes_with_the_logs_of_its_filesets_which_a_preview_counts(
    client: FlaskClient, session: Session, context: Context, workspace: Workspace
) -> None:
    send(client, logs(*"ab"), artifact_base_path="jobs/train")
    assert preview(session, trusted("ann"), "ml-team").remaining == {"filesets": 2, "job_logs": 2}
    session.rollback()
    workspace_id = workspace.id
    with session_scope(context.sessions) as other:
        deletion = request_deletion(other, context, trusted("ann"), "ml-team").id

    for _ in range(10):
        run_slice(context, deletion, owner="test")

    assert rows_of(session, workspace_id) == {}
    assert session.scalars(select(Workspace.id).where(Workspace.id == workspace_id)).all() == []


# --- who writes at the same time


def line(text: str) -> ReportedLine:
    return ReportedLine(Source("train", "1", "first", "main"), datetime.now(UTC), text)


def test_a_line_comes_behind_all_that_are_there_whatever_the_clock_of_their_writer_says(
    client: FlaskClient, session: Session, workspace: Workspace, fileset: Fileset
) -> None:
    ahead = UUID(int=uuid7().int + (int(timedelta(days=1).total_seconds() * 1000) << 80))
    where = {"fileset_id": fileset.id, "base_path": "", "job": "train", "job_id": None}
    facts = {"workspace_id": workspace.id, "attempt_id": uuid7(), "step": "first", "task": "main"}
    session.add(JobLog(id=ahead, message="first", **where, **facts))
    session.commit()

    send(client, logs("second", "third"))
    send(client, logs("fourth"))

    assert messages(query(client)) == ["first", "second", "third", "fourth"]


def test_so_it_does_in_the_log_of_an_attempt_whatever_other_attempts_have(
    client: FlaskClient, session: Session, owner: Job
) -> None:
    ahead = UUID(int=uuid7().int + (int(timedelta(days=1).total_seconds() * 1000) << 80))
    make_job_log(session, owner, "first", step="first", id=ahead)
    make_job_log(session, owner, "of another attempt", step="first", attempt_id=UUID(int=2**128 - 1))
    session.commit()

    send(client, logs("second", job="alone", job_attempt=str(owner.attempt_id)), fileset=owner.fileset)

    assert messages(query(client, owner.fileset)) == ["first", "second"]


def test_one_writer_of_a_log_waits_for_the_other_so_that_no_reader_passes_a_line_that_is_still_to_come(
    database: Engine, context: Context, session: Session, client: FlaskClient
) -> None:
    def write(text: str, folder: str) -> None:
        with session_scope(context.sessions) as other:
            append(other, trusted("bob"), "ml-team", "data", [line(text)], base_path=folder)

    with session_scope(context.sessions) as first:
        append(first, trusted("ann"), "ml-team", "data", [line("first")], base_path="")
        write("elsewhere", "another")
        with meanwhile(lambda: write("second", "")) as second:
            assert has_to_wait(database, second)
            first.commit()

    second.result()
    assert messages(query(client)) == ["first", "second"]
