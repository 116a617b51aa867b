"""Emails in another case than that of the member they belong to."""

import pytest
from flask.testing import FlaskClient

from app.access.principal import folded
from tests.support.people import OPERATOR, announced

W = "/apis/entities/v2/workspaces"
ML_TEAM = f"{W}/ml-team"
ADMIN = announced("root", email=OPERATOR)
SPELLINGS = ["Bob@Example.com", "bob@example.com"]


@pytest.fixture(autouse=True)
def workspace(client: FlaskClient) -> None:
    assert client.post(W, json={"name": "ml-team"}, headers=ADMIN).status_code == 201


def add(client: FlaskClient, principal: str, role: str = "Viewer") -> None:
    body = {"principal": principal, "roles": [role]}
    assert client.post(f"{ML_TEAM}/members", json=body, headers=ADMIN).status_code == 201


def status_for(client: FlaskClient, principal: str, *, email: str = "", **more: list[str]) -> int:
    return client.get(ML_TEAM, headers=announced(principal, email=email, **more)).status_code


def members(client: FlaskClient) -> dict[str, list[str]]:
    answer = client.get(f"{ML_TEAM}/members", headers=ADMIN).get_json()
    return {one["principal"]: sorted(one["roles"]) for one in answer["data"] if one["principal"] != OPERATOR}


@pytest.mark.parametrize("member", SPELLINGS)
@pytest.mark.parametrize("caller", [*SPELLINGS, "BOB@EXAMPLE.COM"])
def test_an_email_has_its_roles_in_any_case(client: FlaskClient, member: str, caller: str) -> None:
    add(client, member)

    assert status_for(client, "b1", email=caller) == 200


def test_ids_and_groups_are_compared_exactly(client: FlaskClient) -> None:
    add(client, "Bob@Example.com")
    add(client, "Crew")

    assert status_for(client, "Bob@Example.com") == 200
    assert status_for(client, "bob@example.com") == 403
    assert status_for(client, "b1", groups=["bob@example.com"]) == 403
    assert status_for(client, "b1", groups=["crew"]) == 403
    assert status_for(client, "b1", email="crew") == 403


def test_two_spellings_are_one_member(client: FlaskClient) -> None:
    add(client, "Bob@Example.com", "Viewer")
    add(client, "bob@example.com", "Editor")

    assert members(client) == {"Bob@Example.com": ["Editor", "Viewer"]}
    assert status_for(client, "bob@example.com") == 200

    assert client.delete(f"{ML_TEAM}/members/BOB@example.com", headers=ADMIN).status_code == 200
    assert members(client) == {}
    assert status_for(client, "b1", email="bob@example.com") == 403


def test_the_last_admin_is_the_last_in_any_spelling(client: FlaskClient) -> None:
    for spelling in SPELLINGS:
        add(client, spelling, "Admin")
    assert members(client) == {"Bob@Example.com": ["Admin"]}
    assert client.delete(f"{ML_TEAM}/members/{OPERATOR}", headers=ADMIN).status_code == 200

    assert client.delete(f"{ML_TEAM}/members/bob@example.com", headers=ADMIN).status_code == 409


def test_only_ascii_is_folded_and_only_in_emails() -> None:
    assert folded("İS@Example.COM") == "İs@example.com"
    assert folded("Crew") == "Crew"
