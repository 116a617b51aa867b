"""Reading the log of a job over HTTP, also while it grows."""

from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.lifecycle import JobStatus
from app.models import Job, JobLog
from app.services.job_steps import step_id
from app.services.logs.pages import MAX_PAGE_BYTES
from tests.factories import make_job, make_workspace

LOGS = "/apis/jobs/v2/workspaces/ml-team/jobs/train/logs"
STEPS = [{"name": name, "executor": {"provider": "subprocess", "command": ["true"]}} for name in ("aa", "bb")]


@pytest.fixture(autouse=True)
def job(session: Session) -> Job:
    job = make_job(
        session, make_workspace(session), "train", JobStatus.ACTIVE, platform_spec={"steps": STEPS}
    )
    session.commit()
    return job


def write(session: Session, job: Job, *messages: str, attempt_id: UUID | None = None, **values: Any) -> None:
    facts = {"workspace_id": job.workspace_id, "job_id": job.id, "step": "aa", "task": "main", **values}
    for message in messages:
        session.add(JobLog(attempt_id=attempt_id or job.attempt_id, message=message, **facts))
        session.flush()  # one by one: the ids are in the order of the lines
    session.commit()


def read(client: FlaskClient, **query: Any) -> Any:
    response = client.get(
        LOGS, query_string={key: value for key, value in query.items() if value is not None}
    )
    assert response.status_code == 200, response.text
    return response.json


def messages(page: Any) -> list[str]:
    return [line["message"] for line in page["data"]]


def test_a_log_without_lines_is_an_empty_page(client: FlaskClient) -> None:
    assert read(client) == {"data": [], "total": 0, "next_page": None, "prev_page": None}


def follow(client: FlaskClient, side: str, **query: Any) -> list[Any]:
    """The pages from one end of a log to the other."""
    pages = [read(client, **query)]
    while cursor := pages[-1][side]:
        pages.append(read(client, page_cursor=cursor, **query))
    return pages


def test_a_page_ends_at_so_many_bytes_and_every_line_is_reached_from_both_ends(
    client: FlaskClient, session: Session, job: Job
) -> None:
    third = MAX_PAGE_BYTES // 3
    sizes = [third, third, third, 1, 4 * third, third, third, third + 5]
    written = [str(number) + "\x01" * (size - 1) for number, size in enumerate(sizes)]
    write(session, job, *written)

    forward = follow(client, "next_page", limit=10_000)
    last = read(client, page_cursor=forward[-1]["prev_page"], limit=10_000)
    backward = [forward[-1], last]
    while cursor := backward[-1]["prev_page"]:
        backward.append(read(client, page_cursor=cursor, limit=10_000))

    assert [[line[0] for line in messages(page)] for page in forward] == [
        ["0", "1", "2", "3"],
        ["4"],
        ["5", "6"],
        ["7"],
    ]
    assert [text for page in forward for text in messages(page)] == written
    assert [text for page in reversed(backward) for text in messages(page)] == written
    assert {page["total"] for page in forward} == {len(written)}


def test_a_line_is_shown_with_every_key_of_the_contract(
    client: FlaskClient, session: Session, job: Job
) -> None:
    write(session, job, "hello")

    [line] = read(client)["data"]

    assert line.pop("timestamp").endswith("Z")
    assert line == {"job": "train", "job_step": "aa", "job_task": "main", "message": "hello"}


def test_the_tail_of_a_log_is_its_newest_lines_and_leads_back(
    client: FlaskClient, session: Session, job: Job
) -> None:
    write(session, job, *"abcde")

    tail = read(client, tail=2)
    before = read(client, page_cursor=tail["prev_page"])

    assert (messages(tail), tail["total"], tail["next_page"]) == (["d", "e"], 5, None)
    assert (messages(before), before["prev_page"]) == (["a", "b", "c"], None)
    assert messages(read(client, tail=10_000)) == [*"abcde"]
    assert read(client, tail=10_000)["prev_page"] is None
    assert read(client, tail=1, step_id="bb") == {
        "data": [],
        "total": 0,
        "next_page": None,
        "prev_page": None,
    }


def test_a_tail_ends_at_so_many_bytes(client: FlaskClient, session: Session, job: Job) -> None:
    half = MAX_PAGE_BYTES // 2
    write(session, job, *(letter * half for letter in "abc"))

    tail = read(client, tail=3)

    assert [text[0] for text in messages(tail)] == ["b", "c"]
    assert [text[0] for text in messages(read(client, page_cursor=tail["prev_page"]))] == ["a"]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("tail=2&limit=2", 400, "tail cannot be combined with limit"),
        ("tail=2&page_cursor=after.00", 400, "pass the returned prev_page"),
        ("tail=0", 422, "greater than 0"),
        ("tail=10001", 422, "less than or equal to 10000"),
    ],
)
def test_a_tail_is_a_window_of_its_own(client: FlaskClient, query: str, status: int, words: str) -> None:
    response = client.get(f"{LOGS}?{query}")

    assert response.status_code == status
    assert words in str(response.json["detail"])


def test_the_pages_of_a_log_are_the_log_forwards_and_back(
    client: FlaskClient, session: Session, job: Job
) -> None:
    write(session, job, *"abcde")

    pages = [read(client, limit=2)]
    while pages[-1]["next_page"]:
        pages.append(read(client, limit=2, page_cursor=pages[-1]["next_page"]))
    back = [pages[-1]]
    while back[-1]["prev_page"]:
        back.append(read(client, limit=2, page_cursor=back[-1]["prev_page"]))

    assert [messages(page) for page in pages] == [["a", "b"], ["c", "d"], ["e"]]
    assert [messages(page) for page in back] == [["e"], ["c", "d"], ["a", "b"]]
    assert {page["total"] for page in pages} == {5}


def test_an_answer_counts_no_more_lines_than_its_limit(
    client: FlaskClient, session: Session, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.logs.pages.MOST_COUNTED", 3)
    write(session, job, *"abcde")

    page = read(client)

    assert (messages(page), page["total"]) == (list("abcde"), 3)


def test_pages_stay_where_they_are_while_the_log_grows(
    client: FlaskClient, session: Session, job: Job
) -> None:
    write(session, job, *"abc")
    first = read(client, limit=2)
    cursor = first["next_page"]

    assert messages(read(client, limit=2, page_cursor=cursor)) == ["c"]
    write(session, job, *"de")

    assert read(client, limit=2) == {**first, "total": 5}
    grown = read(client, limit=2, page_cursor=cursor)
    assert messages(grown) == ["c", "d"]
    assert messages(read(client, limit=2, page_cursor=grown["next_page"])) == ["e"]


def test_only_the_present_attempt_is_read_unless_another_is_asked_for(
    client: FlaskClient, session: Session, job: Job
) -> None:
    earlier = uuid7()
    write(session, job, "old", attempt_id=earlier)
    write(session, job, "new")
    other = make_job(session, make_workspace(session, "neighbour"))
    write(session, other, "theirs", attempt_id=job.attempt_id)

    assert messages(read(client)) == ["new"]
    assert messages(read(client, attempt_id=str(earlier))) == ["old"]
    assert messages(read(client, attempt_id=str(uuid7()))) == []


def test_lines_are_chosen_by_step_and_task(client: FlaskClient, session: Session, job: Job) -> None:
    write(session, job, "one")
    write(session, job, "two", step="bb")
    write(session, job, "three", step="bb", task="other")

    assert messages(read(client, step_id="bb")) == ["two", "three"]
    assert messages(read(client, step_id=str(step_id(job.attempt_id, "bb")))) == ["two", "three"]
    assert messages(read(client, step_id="bb", task_id="other")) == ["three"]
    assert read(client, step_id="bb", limit=1)["total"] == 2
    assert messages(read(client, step_id="nope")) == []


@pytest.mark.parametrize(
    "cursor", ["", "made-up", "after.", "after.7", "sideways.00000000000000000000000000000000"]
)
def test_a_cursor_that_no_page_gave_out_is_refused(client: FlaskClient, cursor: str) -> None:
    response = client.get(LOGS, query_string={"page_cursor": cursor})

    assert (response.status_code, response.json) == (422, {"detail": "Invalid page cursor"})


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=x", "attempt_id=first"])
def test_a_strange_stretch_is_refused(client: FlaskClient, query: str) -> None:
    assert client.get(f"{LOGS}?{query}").status_code == 422
