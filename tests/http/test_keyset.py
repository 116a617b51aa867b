"""Pages by key of the lists that grow for ever: each row once, and as many rows read as the page has."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from app.context import Context
from app.models import AuditRecord, Deletion, DeletionEvent
from tests.support.database import remember, restore
from tests.support.statements import compact, rows_read

MANY = 400
AUDIT, DELETIONS = "/apis/auth/v2/audit", "/apis/entities/v2/deletions"


@pytest.fixture(scope="module")
def _made(engine: Engine) -> dict[str, str]:
    """Their rows are made once."""
    restore(engine)
    with Session(engine) as session:
        lists = make(session)
    remember(engine, "lists")
    return lists


@pytest.fixture
def lists(_made: dict[str, str], database: Engine) -> dict[str, str]:
    """The lists by what they are of, each with `MANY` rows."""
    restore(database, "lists")
    return _made


def make(session: Session) -> dict[str, str]:
    deletions = [
        Deletion(workspace_id=None, workspace_name=f"w-{number}", requested_by="ann", state="DONE")
        for number in range(MANY)
    ]
    for one in deletions:
        one.workspace_id = session.scalar(text("SELECT gen_random_uuid()"))
    session.add_all(deletions)
    session.flush()
    session.add_all(AuditRecord(event=f"event-{number}", actor="ann") for number in range(MANY))
    first = deletions[0].id
    session.add_all(
        DeletionEvent(deletion_id=first, actor="w", event=f"e-{number}") for number in range(MANY)
    )
    # Half of them at one time each: their order is that of their keys.
    for table, column in (("deletions", "requested_at"), ("audit_records", "at")):
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(
            text(
                f"UPDATE {table} SET {column} = now() - n / 2 * interval '1 s' FROM (SELECT id AS i, "
                f"row_number() OVER (ORDER BY id) AS n FROM {table}) AS numbered WHERE id = i"
            )
        )
    session.commit()
    return {
        "deletions": DELETIONS,
        "audit_records": AUDIT,
        "deletion_events": f"{DELETIONS}/{first}/events",
    }


def get(client: FlaskClient, path: str, **query: Any) -> Any:
    response = client.get(path, query_string=query)
    assert response.status_code == 200, response.text
    return response.json


TABLES = ["deletions", "audit_records", "deletion_events"]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("sort", ["", "-"])
def test_following_the_cursors_meets_the_rows_of_the_numbered_pages(
    client: FlaskClient, lists: dict[str, str], table: str, sort: str
) -> None:
    column = {"deletions": "requested_at", "audit_records": "at"}.get(table)
    sorted_by = {"sort": f"{sort}{column}"} if column else {}
    numbered = get(client, lists[table], page_size=1000, **sorted_by)["data"]

    page = get(client, lists[table], page_size=150, after="", **sorted_by)
    met = page["data"]
    while page["data"]:
        assert page["pagination"] is None
        page = get(client, lists[table], page_size=150, after=page["after"], **sorted_by)
        met += page["data"]

    assert len(numbered) == MANY
    assert met == numbered
    again = get(client, lists[table], after=page["after"], **sorted_by)
    assert (again["data"], again["after"]) == ([], page["after"])


@pytest.mark.parametrize("table", TABLES)
def test_a_numbered_page_leads_on_by_its_cursor(
    client: FlaskClient, lists: dict[str, str], table: str
) -> None:
    numbered = get(client, lists[table], page=2, page_size=50)

    assert numbered["pagination"]["total_results"] == MANY
    behind = get(client, lists[table], page_size=50, after=numbered["after"])
    assert behind["data"] == get(client, lists[table], page=3, page_size=50)["data"]


@pytest.mark.parametrize("table", TABLES)
def test_a_page_far_behind_reads_as_many_rows_as_it_has(
    client: FlaskClient, session: Session, context: Context, lists: dict[str, str], table: str
) -> None:
    # Few rows with short texts are read as a whole, because that is cheaper than an index.
    session.execute(
        text(
            "INSERT INTO audit_records (id, at, event, actor, email, service, address, request_id) "
            "SELECT gen_random_uuid(), now() - (1000 + n) * interval '1 s', 'x', 'ann', '', '', '', '' "
            "FROM generate_series(1, 5000) AS n"
        )
    )
    session.commit()
    compact(context.sessions.kw["bind"], *TABLES)
    far = get(client, lists[table], page=38, page_size=10)["after"]

    read = rows_read(context.sessions.kw["bind"], lambda: get(client, lists[table], page_size=10, after=far))

    # The page, what has the time of its first row or of the one behind it, and the same again where a report is made.
    assert 10 <= read[table] <= 50


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("cursor", ["x", "1_2_3", "2026-01-01_7", "9" * 30, "-1", "²"])
def test_what_is_no_cursor_is_refused(
    client: FlaskClient, lists: dict[str, str], table: str, cursor: str
) -> None:
    response = client.get(lists[table], query_string={"after": cursor})

    assert response.status_code == 400
    assert "is no cursor of this list" in response.json["detail"]


def test_a_cursor_goes_without_a_page(client: FlaskClient, lists: dict[str, str]) -> None:
    response = client.get(AUDIT, query_string={"after": "", "page": 2})

    assert (response.status_code, response.json["detail"]) == (
        400,
        "after goes without page: it says by itself where the page begins.",
    )
