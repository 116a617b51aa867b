"""The feed of the events of all deletions: nothing is lost between two pages, and nobody sees more than they may."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session

from app.cleanup.report import feed
from app.cleanup.report.feed import place_restored_events
from app.context import Context
from app.models import Deletion, DeletionEvent
from tests import factories
from tests.support.deadlines import DEADLINE_S
from tests.support.preloaded import run_preloaded
from tests.support.statements import compact, rows_read

ROOT = Path(__file__).parents[2]
FEED = "/apis/entities/v2/deletion-events"


def happen(session: Session, deletion: Deletion, *events: str) -> None:
    """Events of a deletion, written in the transaction of the session."""
    session.add_all(DeletionEvent(deletion_id=deletion.id, actor="w", event=event) for event in events)
    session.flush()


def page(client: FlaskClient, after: str | None = None, limit: int = 100) -> Any:
    given = {"limit": limit} | ({"after": after} if after is not None else {})
    response = client.get(FEED, query_string=given)
    assert response.status_code == 200, response.text
    return response.json


def read_on(client: FlaskClient, after: str | None = None, limit: int = 100) -> tuple[list[str], str]:
    """The events that are shown from there on, and the cursor behind them."""
    events: list[str] = []
    while True:
        found = page(client, after, limit)
        events += [one["event"] for one in found["data"]]
        if found["after"] == after:
            return events, found["after"]
        after = found["after"]


def followed(
    client: FlaskClient, number: int, after: str | None = None, limit: int = 100
) -> tuple[list[str], str]:
    """The next `number` events, waited for: transactions of other tests on the same server hold them up."""
    events, after = read_on(client, after, limit)
    deadline = time.monotonic() + DEADLINE_S
    while len(events) < number:
        assert time.monotonic() < deadline, f"only {events} came"
        found, after = read_on(client, after, limit)
        events += found
    return events, after


@pytest.fixture
def deletion(session: Session) -> Deletion:
    deletion = factories.make_failed_deletion(session, "ml-team")
    session.commit()
    return deletion


@pytest.fixture
def two(database: Engine) -> Iterator[tuple[Session, Session]]:
    """Two transactions that are under way, of which the first one has the lower number."""
    with Session(database) as first, Session(database) as second:
        for one in (first, second):
            one.scalar(
                select(func.pg_current_xact_id()).with_only_columns(text("pg_current_xact_id()::text"))
            )
        yield first, second


def test_an_event_says_whose_it_is(client: FlaskClient, deletion: Deletion) -> None:
    followed(client, 1)

    found = page(client)

    [event] = found["data"]
    assert event == {
        "id": event["id"],
        "deletion_id": str(deletion.id),
        "workspace_id": str(deletion.workspace_id),
        "workspace_name": "ml-team",
        "at": event["at"],
        "actor": "w",
        "event": "failed",
        "detail": {},
    }
    assert page(client, found["after"]) == {"data": [], "after": found["after"]}


def test_pages_lead_from_the_oldest_event_to_the_end(
    client: FlaskClient, session: Session, deletion: Deletion
) -> None:
    happen(session, deletion, *(f"event_{number}" for number in range(5)))
    session.commit()

    events, end = followed(client, 6, limit=2)

    assert events == ["failed", *(f"event_{number}" for number in range(5))]
    happen(session, deletion, "later")
    session.commit()
    assert followed(client, 1, end)[0] == ["later"]


def test_a_feed_without_events_has_a_cursor_to_go_on_with(client: FlaskClient, session: Session) -> None:
    events, end = read_on(client)
    assert events == []

    factories.make_failed_deletion(session, "ml-team")
    session.commit()

    assert followed(client, 1, end)[0] == ["failed"]


@pytest.mark.parametrize("number_of_the_later", [0, 1], ids=["lower number", "higher number"])
@pytest.mark.parametrize("first_to_write", [0, 1], ids=["lower writes first", "higher writes first"])
def test_an_event_that_is_committed_later_is_not_lost(
    client: FlaskClient,
    deletion: Deletion,
    two: tuple[Session, Session],
    number_of_the_later: int,
    first_to_write: int,
) -> None:
    _, end = followed(client, 1)
    for number in (first_to_write, 1 - first_to_write):
        happen(two[number], deletion, f"of_{number}")
    later, earlier = two[number_of_the_later], two[1 - number_of_the_later]

    earlier.commit()
    before, meanwhile = read_on(client, end)
    later.commit()
    after, _ = followed(client, 2 - len(before), meanwhile)

    assert [*before, *after] == ["of_0", "of_1"]


def test_an_event_waits_for_the_transactions_before_it(
    client: FlaskClient, deletion: Deletion, two: tuple[Session, Session]
) -> None:
    _, end = followed(client, 1)
    lower, higher = two
    happen(higher, deletion, "of_the_higher")
    higher.commit()

    assert read_on(client, end) == ([], end)
    lower.rollback()
    assert followed(client, 1, end)[0] == ["of_the_higher"]


@pytest.mark.parametrize(
    "cursor", ["", "x", "1", "1.", "1.2.3", "-1.2", "1.-2", "٣.٤", f"{2**63}.1", f"1.{2**63}", "9" * 400]
)
def test_what_is_no_cursor_is_refused_with_the_remedy(client: FlaskClient, cursor: str) -> None:
    response = client.get(FEED, query_string={"after": cursor})

    assert response.status_code == 400
    assert "is no cursor of this feed" in response.json["detail"]
    assert "Pass `after` of an earlier answer as it is" in response.json["detail"]


def test_the_cursor_of_another_database_is_refused(client: FlaskClient, deletion: Deletion) -> None:
    response = client.get(FEED, query_string={"after": f"{2**62}.1"})

    assert response.status_code == 400
    assert "from another database" in response.json["detail"]


@pytest.mark.parametrize("limit", [0, 1001, "x"])
def test_the_length_of_a_page_is_bounded(client: FlaskClient, database: Engine, limit: object) -> None:
    assert client.get(FEED, query_string={"limit": limit}).status_code == 422


def test_events_restored_from_another_server_come_first(
    client: FlaskClient,
    session: Session,
    context: Context,
    deletion: Deletion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "_PLACED_AT_ONCE", 2)
    happen(session, deletion, "restored_1", "restored_2", "restored_3", "of_here")
    session.execute(
        update(DeletionEvent)
        .where(DeletionEvent.event != "of_here")
        .values(transaction_id=text(f"'{2**62}'::xid8"))
    )
    session.commit()
    assert followed(client, 1)[0] == ["of_here"]

    assert place_restored_events(context.sessions) == 4

    assert followed(client, 5)[0] == ["failed", "restored_1", "restored_2", "restored_3", "of_here"]
    assert place_restored_events(context.sessions) == 0


def test_an_upgrade_puts_restored_events_in_their_place(
    session: Session, deletion: Deletion, database_url: str
) -> None:
    session.execute(update(DeletionEvent).values(transaction_id=text(f"'{2**62}'::xid8")))
    session.commit()
    environment = {**os.environ, "WORKSPACES_DATABASE_URL": database_url}

    ended = run_preloaded("python", "-m", "app.cli", "db", "upgrade", env=environment, cwd=ROOT)

    assert ended.returncode == 0, ended.stderr
    assert session.scalars(text("SELECT transaction_id::text FROM deletion_events")).all() == ["0"]


def test_a_page_reads_as_many_events_as_it_has(
    client: FlaskClient, session: Session, context: Context, deletion: Deletion
) -> None:
    happen(session, deletion, *(f"event_{number}" for number in range(3000)))
    session.commit()
    compact(context.sessions.kw["bind"], "deletion_events", "deletions")
    _, middle = followed(client, 1001, limit=1000)
    before = page(client, None, 1000)["after"]
    assert before != middle

    read = rows_read(context.sessions.kw["bind"], lambda: page(client, before, 10))

    assert read["deletion_events"] <= 25  # the entries of the index, and the rows themselves
    assert read["deletions"] <= 10
