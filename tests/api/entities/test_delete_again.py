"""DELETE of a workspace, sent again: by a client that saw no answer, by name, by id, and with its parameters."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Finished
from app.context import Context
from app.lifecycle import WorkspaceState
from app.models import AuditRecord, Deletion, DeletionEvent, Workspace
from tests import factories

WORKSPACES = "/apis/entities/v2/workspaces"
DELETIONS = "/apis/entities/v2/deletions"
ANN, BOB = ({"X-NMP-Principal-Id": name} for name in ("ann@example.com", "bob@example.com"))
RETRY = {"x-stainless-retry-count": "1"}

Finish = Callable[[], None]


@pytest.fixture
def workspace_id(session: Session) -> UUID:
    made = factories.make_workspace(session).id
    session.commit()
    return made


@pytest.fixture
def finish(context: Context) -> Finish:
    """Carry out everything that is due."""

    def run() -> None:
        while not isinstance(run_slice(context, owner="w"), Finished):
            pass

    return run


def successor(client: FlaskClient) -> str:
    made = client.post(WORKSPACES, json={"name": "ml-team"})
    assert made.status_code == 201
    return str(made.json["id"])


def delete(client: FlaskClient, headers: dict[str, str] = ANN, **query: Any) -> Any:
    return client.delete(f"{WORKSPACES}/ml-team", headers=headers, query_string=query)


def states(session: Session) -> dict[str, WorkspaceState]:
    session.rollback()
    return {str(row.id): row.state for row in session.execute(select(Workspace.id, Workspace.state))}


def test_a_delete_by_id_gets_the_same_answer_when_the_workspace_is_gone(
    client: FlaskClient, workspace_id: UUID, finish: Finish
) -> None:
    first = delete(client, id=workspace_id)
    while_deleting = delete(client, id=workspace_id)
    finish()

    again = delete(client, id=workspace_id)

    assert (again.status_code, again.json) == (200, first.json)
    assert again.headers["Location"] == first.headers["Location"]
    assert while_deleting.json == first.json


def test_a_delete_by_id_leaves_the_successor_of_the_name_alone(
    client: FlaskClient, session: Session, workspace_id: UUID, finish: Finish
) -> None:
    first = delete(client, id=workspace_id)
    finish()
    next_one = successor(client)

    again = delete(client, id=workspace_id)

    assert (again.status_code, again.json) == (200, first.json)
    assert states(session)[next_one] is WorkspaceState.ACTIVE


def test_the_id_of_another_workspace_is_a_conflict(
    client: FlaskClient, session: Session, workspace_id: UUID
) -> None:
    other = factories.make_workspace(session, "other").id
    session.commit()

    for wrong in (other, uuid7()):
        refused = delete(client, id=wrong)
        assert refused.status_code == 409
        assert str(workspace_id) in refused.json["detail"]
        assert refused.headers["x-should-retry"] == "false"

    assert states(session)[str(workspace_id)] is WorkspaceState.ACTIVE
    assert states(session)[str(other)] is WorkspaceState.ACTIVE


def test_an_unknown_id_of_an_unknown_name_is_not_found(client: FlaskClient, session: Session) -> None:
    assert delete(client, id=uuid7()).status_code == 404
    assert delete(client, id="nonsense").status_code == 422


def test_a_restored_workspace_is_deleted_by_its_id_once_more(client: FlaskClient, workspace_id: UUID) -> None:
    first = delete(client, id=workspace_id).json["deletion_id"]
    client.post(f"{DELETIONS}/{first}/restore")

    second = delete(client, id=workspace_id)

    assert second.status_code == 200
    assert second.json["deletion_id"] != first


@pytest.mark.parametrize("has_successor", [False, True])
def test_a_retry_is_answered_with_the_deletion_that_the_first_request_began(
    client: FlaskClient, session: Session, workspace_id: UUID, finish: Finish, has_successor: bool
) -> None:
    first = delete(client)
    finish()
    next_one = successor(client) if has_successor else None

    again = delete(client, ANN | RETRY)

    assert (again.status_code, again.json) == (200, first.json)
    if next_one:
        assert states(session)[next_one] is WorkspaceState.ACTIVE


def test_a_retry_of_a_request_that_did_nothing_deletes(
    client: FlaskClient, session: Session, workspace_id: UUID
) -> None:
    """The first one was answered with 503, or never came."""
    assert delete(client, ANN | RETRY).status_code == 200
    assert states(session)[str(workspace_id)] is WorkspaceState.DELETING


@pytest.mark.parametrize("why", ["it is the first request", "it is long ago", "somebody else asked"])
def test_no_other_request_is_taken_for_a_retry(
    client: FlaskClient, session: Session, workspace_id: UUID, finish: Finish, why: str
) -> None:
    first = delete(client)
    finish()
    successor(client)
    if why == "it is long ago":
        session.execute(update(Deletion).values(requested_at=Deletion.requested_at - timedelta(minutes=2)))
        session.commit()
    headers = {
        "it is the first request": ANN | {"x-stainless-retry-count": "0"},
        "it is long ago": ANN | RETRY,
        "somebody else asked": BOB | RETRY,
    }[why]

    second = delete(client, headers)

    assert second.status_code == 200
    assert second.json["deletion_id"] != first.json["deletion_id"]


@pytest.mark.parametrize(
    "count", ["", "x", "-1", "1e9", "9" * 400], ids=["empty", "letter", "negative", "float", "huge"]
)
def test_a_count_of_retries_that_is_none_is_no_error(
    client: FlaskClient, workspace_id: UUID, count: str
) -> None:
    assert delete(client, ANN | {"x-stainless-retry-count": count}).status_code == 200


@pytest.mark.parametrize(("asked", "granted"), [(None, 3600), (60, 3600), (7200, 7200)])
def test_a_request_may_lengthen_the_grace_period_and_never_shortens_it(
    client: FlaskClient, context: Context, workspace_id: UUID, asked: int | None, granted: int
) -> None:
    object.__setattr__(context, "settings", context.settings.model_copy(update={"deletion_grace": 3600}))
    query = {} if asked is None else {"grace_seconds": asked}

    deletion_id = UUID(delete(client, **query).json["deletion_id"])

    with context.sessions() as session:
        deletion = session.get_one(Deletion, deletion_id)
        assert deletion.purge_after - deletion.requested_at == timedelta(seconds=granted)
        assert deletion.next_run_at == deletion.purge_after


@pytest.mark.parametrize(
    "query",
    [
        {"grace_seconds": "-1"},
        {"grace_seconds": "1e300"},
        {"grace_seconds": "nan"},
        {"reason": " "},
        {"reason": "x" * 1001},
    ],
)
def test_parameters_that_mean_nothing_are_refused(
    client: FlaskClient, session: Session, workspace_id: UUID, query: dict[str, str]
) -> None:
    assert delete(client, **query).status_code == 422
    assert states(session)[str(workspace_id)] is WorkspaceState.ACTIVE


def test_the_reason_of_a_request_is_kept_with_the_deletion_and_on_the_record(
    client: FlaskClient, session: Session, workspace_id: UUID
) -> None:
    deletion_id = delete(client, reason="contract ended").json["deletion_id"]

    assert client.get(f"{DELETIONS}/{deletion_id}").json["request_reason"] == "contract ended"
    assert session.scalars(select(AuditRecord.detail)).one() == {"reason": "contract ended"}
    event = session.scalars(select(DeletionEvent).where(DeletionEvent.event == "requested")).one()
    assert event.detail == {"workspace": "ml-team", "reason": "contract ended"}
