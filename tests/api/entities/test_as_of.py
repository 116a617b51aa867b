"""What an operator does after a look is not done to deletions that have failed since."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.clock import database_now
from app.lifecycle import DeletionState, FailureClass
from app.models import Deletion
from tests.factories import make_failed_deletion

DELETIONS = "/apis/entities/v2/deletions"


def failed(session: Session, name: str, error_class: FailureClass = FailureClass.PERMANENT) -> Deletion:
    deletion = make_failed_deletion(session, name, error_class=error_class)
    session.commit()
    return deletion


def fails_again(session: Session, deletion: Deletion) -> None:
    deletion.failed_at = session.scalars(select(database_now())).one()
    session.commit()


def now(session: Session) -> datetime:
    """The database's time."""
    at: datetime = session.scalars(select(database_now())).one()
    session.rollback()
    return at


def listed(client: FlaskClient, **query: str) -> set[str]:
    answer = client.get(DELETIONS, query_string={"scope": "all", "state": "FAILED", **query})
    assert answer.status_code == 200, answer.text
    names = {one["workspace_name"] for one in answer.json["data"]}
    assert answer.json["pagination"]["total_results"] == len(names)
    return names


def test_a_list_leaves_out_what_failed_or_failed_anew_after_the_look(
    client: FlaskClient, session: Session
) -> None:
    failed(session, "seen")
    again = failed(session, "again")
    looked_at = now(session)
    fails_again(session, again)
    failed(session, "later")

    assert listed(client, as_of=looked_at.isoformat()) == {"seen"}
    assert listed(client) == {"seen", "again", "later"}


def test_a_list_of_those_with_failures_of_a_class(client: FlaskClient, session: Session) -> None:
    failed(session, "refused")
    failed(session, "away", FailureClass.TRANSIENT)

    assert listed(client, error_class="transient") == {"away"}
    assert listed(client, error_class="waiting") == set()


@pytest.mark.parametrize("verb", ["retry", "skip", "force"])
def test_a_deletion_that_failed_after_the_look_is_left_alone(
    client: FlaskClient, session: Session, verb: str
) -> None:
    deletion = failed(session, "ml-team")
    at = session.scalars(select(func.max(Deletion.failed_at))).one()
    which = {"kind": "filesets", "resource_id": str(UUID(int=7)), "reason": "x"}
    body = {"retry": None, "skip": which, "force": {"reason": "x"}}[verb]

    early = {"as_of": (at - timedelta(microseconds=1)).isoformat()}
    answer = client.post(f"{DELETIONS}/{deletion.id}/{verb}", query_string=early, json=body)

    assert answer.status_code == 409
    assert "was not yet at" in answer.json["detail"]
    session.refresh(deletion)
    assert deletion.state is DeletionState.FAILED


def test_a_deletion_that_had_failed_at_the_look_is_retried(client: FlaskClient, session: Session) -> None:
    deletion = failed(session, "ml-team")

    answer = client.post(f"{DELETIONS}/{deletion.id}/retry", query_string={"as_of": now(session).isoformat()})

    assert answer.json["state"] == "DELETING"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"as_of": "2026-01-01T00:00:00Z"}, 400),
        ({"as_of": "2026-01-01T00:00:00Z", "state": "DONE"}, 400),
        ({"as_of": "2026-01-01T00:00:00", "state": "FAILED"}, 422),
        ({"as_of": "never", "state": "FAILED"}, 422),
        ({"error_class": "odd"}, 422),
    ],
)
def test_what_no_list_can_mean_is_refused(client: FlaskClient, query: dict[str, str], status: int) -> None:
    assert client.get(DELETIONS, query_string=query).status_code == status
