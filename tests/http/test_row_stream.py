"""Lists of large documents: how much of them is in memory at once, and how a list ends that cannot be completed."""

import gc
import json
import secrets
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, delete, event, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from app.context import Context
from app.http.transfers import row_stream
from app.http.transfers.row_stream import BATCH_BYTES, batches
from app.http.transfers.row_text import RowText
from app.lifecycle import WorkspaceState
from app.models import Entity, Workspace
from tests import factories

LIST = "/apis/entities/v2/workspaces/{}/entities/dataset"
LARGE = 3 * BATCH_BYTES // 2
"""Characters of a document that has a batch to itself: random ones, which cannot be compressed."""


@pytest.fixture
def workspace(session: Session) -> Workspace:
    return factories.make_workspace(session, "ml-team")


def add(session: Session, workspace: Workspace, *sizes: int) -> list[Entity]:
    """Entities of these sizes, the newest last."""
    added = []
    for number, size in enumerate(sizes):
        entity = factories.make_entity(session, workspace, f"e-{number:04}", entity_type="dataset")
        entity.data = {"texts": [secrets.token_hex(size // 2)]}
        added.append(entity)
    session.commit()
    return added


def fetch(client: FlaskClient, workspace: str = "ml-team", **query: Any) -> TestResponse:
    parameters = {"page_size": 1000, "sort": "name"} | query
    return client.get(LIST.format(workspace), query_string=parameters, buffered=False)


class Text(str):
    """The text of an item, to which a weak reference is possible."""

    __slots__ = ("__weakref__",)


@contextmanager
def watched(engine: Engine) -> Iterator[dict[str, int]]:
    """The most items that were in memory at the same time, and the most bytes that one statement returned."""
    seen = {"items": 0, "bytes": 0}
    living: weakref.WeakSet[Text] = weakref.WeakSet()
    make = RowText.texts

    def count(items: RowText, rows: Sequence[Any]) -> list[str]:
        texts = [Text(one) for one in make(items, rows)]
        living.update(texts)
        seen["items"] = max(seen["items"], len(living))
        return list[str](texts)

    def weigh(_connection: Any, cursor: Any, *_: Any) -> None:
        result = cursor.pgresult
        cells = (result.get_value(row, one) for row in range(result.ntuples) for one in range(result.nfields))
        seen["bytes"] = max(seen["bytes"], sum(len(cell or b"") for cell in cells))

    event.listen(engine, "after_cursor_execute", weigh)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RowText, "texts", count)
            yield seen
    finally:
        event.remove(engine, "after_cursor_execute", weigh)


def test_rows_are_read_in_batches_that_are_bounded_in_bytes_and_rows() -> None:
    half = BATCH_BYTES // 2
    sized = [("a", half), ("b", half), ("c", 1), ("d", 16 * BATCH_BYTES), ("e", 0), ("f", 0), ("g", 0)]

    assert batches(sized, rows=2) == [["a", "b"], ["c"], ["d"], ["e", "f"], ["g"]]
    assert batches([]) == []
    assert len(batches((number, 0) for number in range(1000))) == 1


def test_a_page_holds_all_its_rows_however_large_and_few_of_them_are_in_memory(
    session: Session, client: FlaskClient, context: Context, workspace: Workspace
) -> None:
    sizes = [10, LARGE, 10, 10, LARGE, LARGE, LARGE, 10]
    expected = json.dumps([one.data for one in add(session, workspace, *sizes)])
    session.expunge_all()

    with watched(context.sessions.kw["bind"]) as seen:
        answer = fetch(client)
        chunks = [len(chunk) for chunk in answer.response]
        whole = fetch(client).get_data()

    page = json.loads(whole)
    assert json.dumps([one["data"] for one in page["data"]]) == expected
    assert page["pagination"] == {
        "page": 1,
        "page_size": 1000,
        "current_page_size": len(sizes),
        "total_pages": 1,
        "total_results": len(sizes),
    }
    assert list(page) == ["data", "pagination", "sort", "filter", "group_counts"]
    assert whole.endswith(b"}\n")
    assert sum(chunks) == len(whole)
    assert seen["items"] == 2, "items in memory at the same time"
    assert LARGE <= seen["bytes"] <= LARGE + 10_000, "of one statement: a large row, or several small ones"
    assert max(chunks) <= 64 * 1024


def test_no_transaction_is_open_while_the_client_reads(
    session: Session, client: FlaskClient, context: Context, workspace: Workspace
) -> None:
    add(session, workspace, LARGE, LARGE, LARGE)

    answer = fetch(client)

    pool = context.sessions.kw["bind"].pool
    assert {pool.checkedout() for _ in answer.response} == {0}


def test_an_ordinary_page_is_read_by_one_statement_and_sent_at_once(
    session: Session, client: FlaskClient, context: Context, workspace: Workspace
) -> None:
    add(session, workspace, *[500] * 100)
    statements: list[str] = []
    engine = context.sessions.kw["bind"]

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        answer = fetch(client, page_size=99)
    finally:
        event.remove(engine, "before_cursor_execute", note)

    assert answer.content_length == len(answer.get_data())
    assert json.loads(answer.get_data())["pagination"]["total_results"] == 100
    assert len(statements) == 2, "the workspace; the keys with their sizes, the rows and their number"


def test_a_row_that_is_deleted_meanwhile_is_missing_and_not_counted(
    session: Session, client: FlaskClient, workspace: Workspace
) -> None:
    added = add(session, workspace, LARGE, LARGE, LARGE)

    answer = fetch(client)
    session.execute(delete(Entity).where(Entity.id == added[1].id))
    session.commit()

    page = json.loads(answer.get_data())
    assert [one["name"] for one in page["data"]] == ["e-0000", "e-0002"]
    assert page["pagination"]["current_page_size"] == 2


def close(session: Session, workspace: Workspace) -> None:
    moved = update(Workspace).where(Workspace.id == workspace.id).values(state=WorkspaceState.DELETING)
    session.execute(moved)
    session.commit()


def test_a_list_is_cut_once_its_reader_has_lost_the_right_to_it(
    session: Session, client: FlaskClient, workspace: Workspace
) -> None:
    add(session, workspace, LARGE, LARGE, LARGE)

    answer = fetch(client)
    close(session, workspace)

    with pytest.raises(ConnectionResetError):
        answer.get_data()


def test_a_list_of_many_workspaces_goes_on_without_the_one_that_is_closed(
    session: Session, client: FlaskClient, workspace: Workspace
) -> None:
    other = factories.make_workspace(session, "others")
    add(session, workspace, LARGE, LARGE)
    add(session, other, LARGE, LARGE)

    answer = fetch(client, "-")
    close(session, other)

    names = [one["workspace"] for one in json.loads(answer.get_data())["data"]]
    assert names.count("ml-team") == 2
    assert names.count("others") <= 1, "the first batch was read before"


@contextmanager
def failing(engine: Any, fails: Callable[[str], bool]) -> Iterator[None]:
    """Statements for which `fails` fail as if the connection were lost."""

    def refuse(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if fails(statement):
            raise OperationalError(statement, None, Exception("server closed the connection unexpectedly"))

    event.listen(engine, "before_cursor_execute", refuse)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", refuse)


def test_a_list_whose_database_fails_midway_is_cut_and_never_completed(
    session: Session,
    client: FlaskClient,
    context: Context,
    workspace: Workspace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add(session, workspace, LARGE, LARGE, LARGE)

    answer = fetch(client)
    received = b""
    with (
        failing(context.sessions.kw["bind"], lambda statement: "FROM entities" in statement),
        suppress(ConnectionResetError),
    ):
        for chunk in answer.response:
            received += chunk

    assert received.startswith(b'{"data":[{')
    with pytest.raises(json.JSONDecodeError):
        json.loads(received)
    [line] = [record.msg for record in caplog.records if "list.broken_off" in str(record.msg)]
    assert line["request_id"] == answer.headers["X-Request-Id"]


def test_a_list_whose_first_batch_fails_is_answered_as_any_other_request(
    session: Session, client: FlaskClient, context: Context, workspace: Workspace
) -> None:
    add(session, workspace, LARGE, LARGE)

    with failing(context.sessions.kw["bind"], lambda statement: "row_limit" in statement):
        assert fetch(client).status_code == 503


def test_large_lists_count_as_transfers_and_ordinary_ones_do_not(
    session: Session, app: Flask, client: FlaskClient, workspace: Workspace
) -> None:
    add(session, workspace, LARGE, LARGE)
    app.extensions["service"].transfers.limit = 1

    under_way = fetch(client)
    refused = fetch(client)
    assert (refused.status_code, "large lists" in refused.text) == (503, True)
    assert fetch(client, page_size=1).status_code == 200

    under_way.close()
    assert len(json.loads(fetch(client).get_data())["data"]) == 2


def test_documents_are_not_parsed(
    session: Session, client: FlaskClient, context: Context, workspace: Workspace
) -> None:
    """Their size says little about what they are as objects."""
    for entity in add(session, workspace, *[10] * 20):
        entity.data = {"zeros": [0] * 20_000}
    session.commit()
    session.expunge_all()
    del entity
    parsed: list[object] = []
    make = RowText.texts

    def look(items: RowText, rows: Sequence[Any]) -> list[str]:
        parsed.extend(one for one in gc.get_objects() if type(one) is list and len(one) == 20_000)
        return make(items, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowText, "texts", look)
        answer = fetch(client)
        assert len(answer.get_data()) > 20 * 40_000

    assert parsed == []


def test_the_bounds_are_those_that_are_documented() -> None:
    assert (row_stream.BATCH_BYTES, row_stream.BATCH_ROWS) == (256 * 1024, 1000)
