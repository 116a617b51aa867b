"""The stage of a workspace's deletion by the workspace's name, as clients of NeMo Helix ask for it."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cleanup.engine import run_slice
from app.cleanup.history import record
from app.clock import now
from app.config import Settings
from app.context import Context
from app.lifecycle import DeletionState, FailureClass
from app.models import Deletion, DeletionFailure
from tests.support.people import GATEWAY_SECRET, OPERATOR, announced

W = "/apis/entities/v2/workspaces"
STAGES = "/apis/entities/v2/workspace-deletions"
ANN = announced("ann", email="ann@example.com")
ADMIN = announced("the-operator", email=OPERATOR)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    secret = SecretStr(GATEWAY_SECRET)
    return settings.model_copy(
        update={"auth_enabled": True, "gateway_secret": secret, "admin_email": OPERATOR}
    )


@pytest.fixture
def deletion(client: FlaskClient, session: Session) -> Deletion:
    """Of a workspace of ann's, which nobody has begun."""
    client.post(W, json={"name": "anns"}, headers=ANN)
    client.post(f"{W}/anns/members", json={"principal": "ben", "roles": ["Admin"]}, headers=ANN)
    assert client.delete(f"{W}/anns", headers=announced("ben")).status_code == 200
    return session.scalars(select(Deletion)).one()


def stage(client: FlaskClient, by: dict[str, str] = ANN, name: str = "anns") -> tuple[int, Any]:
    answer = client.get(f"{STAGES}/{name}", headers=by)
    return answer.status_code, answer.json


def fail(session: Session, deletion: Deletion, *failures: tuple[str, str], reason: str = "") -> None:
    deletion.state, deletion.started_at, deletion.reason = DeletionState.FAILED, now(), reason or None
    for number, (name, message) in enumerate(failures):
        session.add(
            DeletionFailure(
                deletion_id=deletion.id,
                kind="filesets",
                resource_id=f"{number:04}",
                name=name,
                error_class=FailureClass.TRANSIENT,
                message=message,
                first_seen_at=now(),
                last_seen_at=now(),
            )
        )
    session.commit()


def test_a_deletion_goes_from_pending_to_deleting_to_not_found(
    client: FlaskClient, session: Session, context: Context, deletion: Deletion
) -> None:
    status, told = stage(client)
    assert (status, set(told)) == (200, {"name", "deletion_stage", "deletion_error", "updated_at"})
    assert (told["name"], told["deletion_stage"], told["deletion_error"]) == ("anns", "pending", None)

    deletion.started_at = now()
    session.commit()
    assert stage(client)[1]["deletion_stage"] == "deleting"

    while session.get_one(Deletion, deletion.id, populate_existing=True).state is not DeletionState.DONE:
        session.rollback()
        run_slice(context, deletion.id, owner="test")
    assert stage(client) == stage(client, ADMIN) == (404, {"detail": "Workspace 'anns' not found"})


def test_one_that_has_failed_says_why(client: FlaskClient, session: Session, deletion: Deletion) -> None:
    fail(
        session, deletion, ("data", "permission denied"), ("logs", "the store is away"), reason="no progress"
    )

    told = stage(client)[1]

    assert told["deletion_stage"] == "failed"
    assert told["deletion_error"] == "data: permission denied; logs: the store is away"


def test_without_failures_the_reason_is_what_there_is(
    client: FlaskClient, session: Session, deletion: Deletion
) -> None:
    fail(session, deletion, reason="no progress")

    assert stage(client)[1]["deletion_error"] == "no progress"


def test_however_much_fails_the_answer_is_short(
    client: FlaskClient, session: Session, deletion: Deletion
) -> None:
    fail(session, deletion, *((f"fileset-{number}", "x" * 10_000) for number in range(50)))

    assert len(stage(client)[1]["deletion_error"]) < 4000


def test_the_time_is_that_of_the_last_event(
    client: FlaskClient, session: Session, deletion: Deletion
) -> None:
    record(session, deletion.id, "backed_off", actor="worker")
    session.commit()
    events = client.get(f"/apis/entities/v2/deletions/{deletion.id}/events", headers=ADMIN).json["data"]

    assert stage(client)[1]["updated_at"] == events[-1]["at"]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (ANN, 200),
        (announced("ann"), 200),
        (announced("another", email="ANN@example.com"), 404),
        (announced("ben"), 404),
        (announced("eve", groups=["ann"]), 404),
        (announced("service:entities"), 200),
        (announced("service:entities", principal_on_behalf_of="ben"), 404),
        (announced("service:entities", principal_on_behalf_of="ann"), 200),
        (ADMIN, 200),
        (announced("ann", scopes="entities:read"), 200),
    ],
    ids=str,
)
def test_it_is_for_the_creator_administrators_and_services(
    client: FlaskClient, deletion: Deletion, by: dict[str, str], expected: int
) -> None:
    assert stage(client, by)[0] == expected


def test_a_creator_is_known_by_the_email_too(client: FlaskClient, session: Session) -> None:
    """Some gateways announce the email as the id."""
    by_email = announced("Ann@Example.com")
    client.post(W, json={"name": "anns"}, headers=by_email)
    assert client.delete(f"{W}/anns", headers=by_email).status_code == 200

    assert stage(client, announced("7", email="ann@example.com"))[0] == 200
    assert stage(client, announced("7", email="ben@example.com"))[0] == 404


def test_a_workspace_that_lives_or_never_was_is_not_found(client: FlaskClient) -> None:
    client.post(W, json={"name": "anns"}, headers=ANN)

    for by in (ANN, ADMIN):
        for name in ("anns", "nobodys"):
            assert stage(client, by, name) == (404, {"detail": f"Workspace '{name}' not found"})


def test_one_that_was_called_off_is_not_found(client: FlaskClient, deletion: Deletion) -> None:
    restored = client.post(f"/apis/entities/v2/deletions/{deletion.id}/restore", headers=ADMIN)
    assert restored.status_code == 200, restored.text

    assert stage(client) == (404, {"detail": "Workspace 'anns' not found"})


def test_the_older_one_is_answered_when_the_name_is_taken_again(
    client: FlaskClient, session: Session, deletion: Deletion
) -> None:
    fail(session, deletion, ("data", "permission denied"))
    assert client.post(W, json={"name": "anns"}, headers=announced("ben")).status_code == 201

    assert stage(client)[1]["deletion_error"] == "data: permission denied"
    assert stage(client, announced("ben"))[0] == 404
