"""Secrets over HTTP: kept encrypted, and told to nobody but who may have the value."""

import io
import os
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session, undefer

from app.config import Settings
from app.context import Context
from app.logs import configure_logs
from app.models import Secret, Workspace
from tests.factories import make_secret, make_workspace
from tests.support.keys import KEY, OTHER_KEY, write_keys

SECRETS = "/apis/secrets/v2/workspaces/ml-team/secrets"
ROTATE = "/apis/secrets/v2/rotate-encryption-keys"
VALUE = "hunter2-in-clear"


@pytest.fixture(autouse=True)
def workspace(session: Session) -> Workspace:
    workspace = make_workspace(session)
    session.commit()
    return workspace


def create(client: FlaskClient, name: str = "hf-token", **more: Any) -> dict[str, Any]:
    answer = client.post(SECRETS, json={"name": name, "value": VALUE, **more})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json
    return created


def value_of(client: FlaskClient, name: str = "hf-token") -> str:
    answer = client.get(f"{SECRETS}/{name}/access")
    assert answer.status_code == 200, answer.text
    return str(answer.json["value"])


def with_keys(context: Context, file: Path | None, *keys: bytes) -> None:
    """Let the server have these keys, or none without a file."""
    path = write_keys(file, *keys) if file else ""
    object.__setattr__(context, "settings", context.settings.model_copy(update={"secrets_key_file": path}))


def kept(session: Session, name: str = "hf-token") -> Secret:
    session.rollback()
    query = select(Secret).where(Secret.name == name).options(undefer(Secret.ciphertext))
    return session.scalars(query, execution_options={"populate_existing": True}).one()


# --- as the peer has it


def test_a_secret_is_created_read_changed_and_deleted(client: FlaskClient) -> None:
    created = create(client, description="of the hub")

    assert created.keys() == {"name", "workspace", "description", "created_at", "updated_at"}
    assert (created["name"], created["workspace"]) == ("hf-token", "ml-team")
    assert client.get(f"{SECRETS}/hf-token").json == created
    changed = client.patch(f"{SECRETS}/hf-token", json={"value": "another"}).json
    assert changed["description"] == "of the hub"
    assert changed["updated_at"] > created["updated_at"]
    assert value_of(client) == "another"
    assert client.patch(f"{SECRETS}/hf-token", json={"description": "new"}).json["description"] == "new"
    assert value_of(client) == "another"
    assert client.delete(f"{SECRETS}/hf-token").status_code == 204
    missing = client.get(f"{SECRETS}/hf-token")
    assert (missing.status_code, missing.json) == (404, {"detail": "Secret ml-team/hf-token not found"})


@pytest.mark.parametrize("body", [{}, {"value": None, "description": None}])
def test_a_change_that_names_nothing_changes_nothing(client: FlaskClient, body: dict[str, None]) -> None:
    created = create(client, description="of the hub")

    assert client.patch(f"{SECRETS}/hf-token", json=body).json == created
    assert value_of(client) == VALUE


def test_a_name_is_used_once_in_a_workspace(client: FlaskClient, session: Session) -> None:
    create(client)
    make_secret(session, make_workspace(session, "other"), "hf-token")
    session.commit()

    refused = client.post(SECRETS, json={"name": "hf-token", "value": "another"})

    assert (refused.status_code, refused.json) == (
        409,
        {"detail": "Secret 'ml-team/hf-token' already exists"},
    )
    assert value_of(client) == VALUE


def test_a_page_has_ten_secrets_and_omits_what_is_null(client: FlaskClient) -> None:
    for number in range(11):
        create(client, f"token-{number:02}", **({"description": "last"} if number == 10 else {}))

    page = client.get(SECRETS).json

    assert page.keys() == {"data", "pagination"}
    assert page["pagination"]["total_results"] == 11
    assert len(page["data"]) == 10
    assert page["data"][0]["description"] == "last"
    assert page["data"][1].keys() == {"name", "workspace", "created_at", "updated_at"}
    assert [one["name"] for one in client.get(f"{SECRETS}?sort=name&page_size=2").json["data"]] == [
        "token-00",
        "token-01",
    ]
    everywhere = client.get("/apis/secrets/v2/workspaces/-/secrets?filter[name]=token-03").json
    assert [(one["workspace"], one["name"]) for one in everywhere["data"]] == [("ml-team", "token-03")]


@pytest.mark.parametrize(
    "body",
    [
        {"name": "hf-token", "value": ""},
        {"name": "hf-token", "value": "x" * (64 * 1024 + 1)},
        {"name": "hf-token", "value": "ü" * (32 * 1024) + "x"},
        {"name": "hf-token", "value": "a\0b"},
        {"name": "hf-token", "value": 7},
        {"name": "hf-token", "value": None},
        {"name": "hf-token"},
        {"name": "No--Good", "value": "x"},
    ],
)
def test_a_secret_that_cannot_be_kept_is_refused(client: FlaskClient, session: Session, body: Any) -> None:
    refused = client.post(SECRETS, json=body)

    assert refused.status_code == 422
    assert session.scalars(select(Secret)).all() == []


@pytest.mark.parametrize("value", ["x" * (64 * 1024), "ü" * (32 * 1024), " \n\t'\"$"])
def test_a_value_comes_back_as_it_was_given(client: FlaskClient, value: str) -> None:
    create(client, value=value)

    assert value_of(client) == value


# --- nobody else gets the value


def test_what_is_kept_is_not_the_value(client: FlaskClient, session: Session) -> None:
    create(client)

    [row] = session.execute(text("SELECT t::text, ciphertext FROM secrets t")).all()
    assert VALUE not in row[0]
    assert VALUE.encode() not in bytes(row[1])


@pytest.mark.parametrize(
    "body",
    [
        {"value": VALUE},
        {"name": "No--Good", "value": VALUE},
        {"name": "hf-token", "value": VALUE, "typo": 1},
        {"name": "hf-token", "value": {"inner": VALUE}},
        {"name": "hf-token", "value": [VALUE]},
        {"name": "hf-token", "value": "ok", "description": [VALUE]},
        {"name": "hf-token", "value": "ok", "typo": VALUE},
        [VALUE],
        VALUE,
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", SECRETS), ("PATCH", f"{SECRETS}/hf-token")])
def test_a_refusal_does_not_repeat_what_was_sent(
    client: FlaskClient, method: str, path: str, body: Any
) -> None:
    refused = client.open(path, method=method, json=body)

    if (method, body) != ("PATCH", {"value": VALUE}):
        assert refused.status_code == 422
    assert VALUE not in refused.text


# --- keys


def refused_without_keys(client: FlaskClient) -> list[Any]:
    """The answers to all that needs keys."""
    return [
        client.post(SECRETS, json={"name": "more", "value": VALUE}),
        client.patch(f"{SECRETS}/hf-token", json={"value": "another"}),
        client.get(f"{SECRETS}/hf-token/access"),
        client.post(ROTATE),
    ]


def test_without_keys_what_needs_them_says_so_and_the_rest_works(
    client: FlaskClient, context: Context
) -> None:
    create(client)
    with_keys(context, None)

    for answer in refused_without_keys(client):
        assert (answer.status_code, answer.json["code"]) == (409, "secrets_disabled")
        assert "WORKSPACES_SECRETS_KEY_FILE" in answer.json["detail"]
        assert answer.headers["x-should-retry"] == "false"
    assert [one["name"] for one in client.get(SECRETS).json["data"]] == ["hf-token"]
    assert client.patch(f"{SECRETS}/hf-token", json={"description": "new"}).json["description"] == "new"
    assert client.delete(f"{SECRETS}/hf-token").status_code == 204


def test_a_key_file_that_others_can_read_since_is_used_no_more(
    client: FlaskClient, context: Context, tmp_path: Path
) -> None:
    with_keys(context, tmp_path / "keys", KEY)
    create(client)
    (tmp_path / "keys").chmod(0o644)
    written = io.StringIO()
    with redirect_stderr(written):
        configure_logs(context.settings)
        answers = refused_without_keys(client)
    configure_logs(Settings())

    assert {(answer.status_code, answer.json["code"]) for answer in answers} == {(409, "secrets_disabled")}
    assert all("as its log says" in answer.json["detail"] for answer in answers)
    assert "secrets.keys_unusable" in written.getvalue()
    assert "chmod 600" in written.getvalue()


def test_the_first_key_encrypts_and_all_decrypt(
    client: FlaskClient, context: Context, session: Session, tmp_path: Path
) -> None:
    create(client, "old")
    with_keys(context, tmp_path / "keys", OTHER_KEY, KEY)
    create(client, "new")

    assert kept(session, "old").key_id != kept(session, "new").key_id
    assert (value_of(client, "old"), value_of(client, "new")) == (VALUE, VALUE)


def test_a_rotation_lets_the_old_key_be_taken_away(
    client: FlaskClient, context: Context, session: Session, tmp_path: Path
) -> None:
    create(client)
    before = kept(session)
    sealed = before.ciphertext, before.updated_at
    with_keys(context, tmp_path / "keys", OTHER_KEY, KEY)

    answer = client.post(ROTATE)

    assert (answer.status_code, answer.json) == (202, {"rotated_secrets": 1, "success": True, "left": 0})
    after = kept(session)
    assert after.ciphertext != sealed[0]
    assert after.updated_at == sealed[1], "nobody has changed the secret"
    with_keys(context, tmp_path / "keys", OTHER_KEY)
    assert value_of(client) == VALUE
    assert client.post(ROTATE).json == {"rotated_secrets": 0, "success": True, "left": 0}


def test_a_secret_whose_key_is_missing_says_so_until_it_gets_a_new_value(
    client: FlaskClient, context: Context, tmp_path: Path
) -> None:
    create(client)
    with_keys(context, tmp_path / "keys", OTHER_KEY)

    refused = client.get(f"{SECRETS}/hf-token/access")

    assert (refused.status_code, refused.json["code"]) == (409, "secret_unreadable")
    assert "ml-team/hf-token" in refused.json["detail"]
    assert client.post(ROTATE).json == {"rotated_secrets": 0, "success": False, "left": 1}
    client.patch(f"{SECRETS}/hf-token", json={"value": "another"})
    assert value_of(client) == "another"


def test_a_value_that_is_copied_to_another_row_does_not_decrypt(
    client: FlaskClient, session: Session
) -> None:
    create(client)
    create(client, "copy")
    stolen = kept(session).ciphertext
    session.execute(update(Secret).where(Secret.name == "copy").values(ciphertext=stolen))
    session.commit()

    refused = client.get(f"{SECRETS}/copy/access")

    assert (refused.status_code, refused.json["code"]) == (409, "secret_unreadable")
    assert VALUE not in refused.text
    assert value_of(client) == VALUE
    create(client, "short")
    session.execute(update(Secret).where(Secret.name == "short").values(ciphertext=os.urandom(3)))
    session.commit()
    assert client.get(f"{SECRETS}/short/access").status_code == 409
