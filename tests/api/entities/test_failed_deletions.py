"""FAILED deletions by what they have in common, over HTTP."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cleanup import bulk
from app.lifecycle import FailureClass
from app.models import AuditRecord, Deletion
from tests.factories import make_failed_deletion

DELETIONS = "/apis/entities/v2/deletions"
CAUSES = "/apis/entities/v2/deletion-causes"
LOOK = "2100-01-01T00:00:00Z"


@pytest.fixture(autouse=True)
def _no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call ends after some seconds, in which a slow machine may not have done what a test is about."""
    monkeypatch.setattr(bulk, "monotonic", lambda: 0.0)


@pytest.fixture
def failed(session: Session) -> None:
    for name in ("a", "b"):
        make_failed_deletion(session, name)
    make_failed_deletion(session, "away", error_class=FailureClass.TRANSIENT)
    session.commit()


def states(session: Session) -> dict[str, str]:
    session.rollback()
    found = session.execute(select(Deletion.workspace_name, Deletion.state))
    return {name: state.value for name, state in found}


def test_a_cause_and_the_time_of_the_look_are_what_a_retry_of_many_needs(
    client: FlaskClient, session: Session, failed: None
) -> None:
    looked = client.get(CAUSES).json
    make_failed_deletion(session, "later")
    session.commit()
    [first, second] = looked["data"]

    which = {name: first[name] for name in ("kind", "error_class", "cause")}
    answer = client.post(f"{DELETIONS}/retry", json={"as_of": looked["as_of"], **which})

    assert looked["deletions"] == 3
    assert (first["deletions"], first["resources"], second["deletions"]) == (2, 2, 1)
    assert first["oldest_failed_at"] <= looked["as_of"]
    assert answer.json == {"asked": 2, "left_alone": 0, "left": 0, "skipped": 0}
    assert states(session) == {"a": "DELETING", "b": "DELETING", "away": "FAILED", "later": "FAILED"}


@pytest.mark.parametrize(("verb", "skipped"), [("skip", 1), ("force", 0)])
def test_many_are_given_up_for_a_reason_that_is_on_record(
    client: FlaskClient, session: Session, failed: None, verb: str, skipped: int
) -> None:
    about = {"as_of": LOOK, "error_class": "transient", "cause": "denied", "reason": " ticket 7 "}

    answer = client.post(f"{DELETIONS}/{verb}", json=about)

    assert answer.json == {"asked": 1, "left_alone": 0, "left": 0, "skipped": skipped}
    assert states(session) == {"a": "FAILED", "b": "FAILED", "away": "DELETING"}
    assert [one.detail["reason"] for one in session.scalars(select(AuditRecord))] == ["ticket 7"]


def test_causes_are_those_of_what_was_failed_at_the_look(client: FlaskClient, failed: None) -> None:
    early = client.get(CAUSES, query_string={"as_of": "2026-01-01T01:00:00+01:00"}).json
    to_come = client.get(CAUSES, query_string={"as_of": LOOK}).json

    assert early == {"data": [], "as_of": "2026-01-01T00:00:00.000000Z", "deletions": 0}
    assert to_come["deletions"] == 3
    assert to_come["as_of"] < LOOK


def test_deletions_of_a_cause_are_listed(client: FlaskClient, failed: None) -> None:
    def listed(**which: str) -> set[str]:
        answer = client.get(DELETIONS, query_string={"state": "FAILED", "cause": "denied", **which})
        return {one["workspace_name"] for one in answer.json["data"]}

    assert listed() == {"a", "b", "away"}
    assert listed(kind="filesets", error_class="transient") == {"away"}
    assert listed(kind="jobs") == set()
    assert listed(cause="lost") == set()


@pytest.mark.parametrize(
    ("verb", "body", "complaint"),
    [
        ("retry", {}, "Field required"),
        ("retry", {"as_of": None}, "a time is given as text"),
        ("retry", {"as_of": 1767225600}, "a time is given as text"),
        ("retry", {"as_of": "yesterday"}, "a time is given as text"),
        ("retry", {"as_of": "2026-01-01T00:00:00"}, "timezone"),
        ("retry", {"as_of": "0001-01-01T00:00:00+14:00"}, "before the year 1"),
        ("retry", {"as_of": LOOK, "error_class": "odd"}, "transient"),
        ("retry", {"as_of": LOOK, "clause": "denied"}, "Extra inputs"),
        ("retry", {"as_of": LOOK, "cause": "x" * 10_001}, "at most"),
        ("skip", {"as_of": LOOK, "kind": "filesets"}, "Field required"),
        ("skip", {"as_of": LOOK, "kind": "filesets", "reason": "  "}, "at least"),
        (
            "skip",
            {"as_of": LOOK, "error_class": "permanent", "reason": "r"},
            "one of kind and cause is required",
        ),
        ("force", {"as_of": LOOK}, "Field required"),
    ],
)
def test_what_is_not_clear_is_not_done(
    client: FlaskClient, session: Session, failed: None, verb: str, body: dict[str, Any], complaint: str
) -> None:
    answer = client.post(f"{DELETIONS}/{verb}", json=body)

    assert answer.status_code == 422
    assert complaint in answer.text
    assert set(states(session).values()) == {"FAILED"}


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        (CAUSES, {"as_of": "never"}, 422),
        (CAUSES, {"as_of": "9999-12-31T23:59:59-14:00"}, 422),
        (CAUSES, {"kind": "filesets"}, 422),
        (DELETIONS, {"cause": "denied"}, 400),
        (DELETIONS, {"kind": "filesets", "state": "DONE"}, 400),
    ],
)
def test_what_no_list_can_mean_is_refused(
    client: FlaskClient, path: str, query: dict[str, str], status: int
) -> None:
    assert client.get(path, query_string=query).status_code == status
