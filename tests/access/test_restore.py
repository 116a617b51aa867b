"""Calling a deletion off: under its own name who asked for it, under another one who may create workspaces."""

import pytest
from flask.testing import FlaskClient

from tests.support.people import OPERATOR, announced

W, D = "/apis/entities/v2/workspaces", "/apis/entities/v2/deletions"
ANN, ADMIN = announced("ann"), announced("the-operator", email=OPERATOR)


@pytest.fixture
def deletion(client: FlaskClient) -> str:
    """Of a workspace of ann's, who since may create no workspaces any more."""
    client.post(W, json={"name": "anns"}, headers=ANN)
    deleted = client.delete(f"{W}/anns", headers=ANN)
    everybody = client.put(f"{W}/system/members/*", json={"roles": ["Viewer"]}, headers=ADMIN)
    assert (deleted.status_code, everybody.status_code) == (200, 200), everybody.json
    return f"{D}/{deleted.json['deletion_id']}/restore"


def test_another_name_needs_the_right_to_create(client: FlaskClient, deletion: str) -> None:
    assert client.post(W, json={"name": "new"}, headers=ANN).status_code == 403

    assert client.post(deletion, json={"name": "new"}, headers=ANN).status_code == 403
    assert client.get(f"{W}/new", headers=ADMIN).status_code == 404


@pytest.mark.parametrize("body", [None, {"name": "anns"}])
def test_its_own_name_does_not(client: FlaskClient, deletion: str, body: dict[str, str] | None) -> None:
    assert client.post(deletion, json=body, headers=ANN).status_code == 200
    assert client.get(f"{W}/anns", headers=ANN).status_code == 200


def test_an_administrator_may_give_any_name(client: FlaskClient, deletion: str) -> None:
    assert client.post(deletion, json={"name": "new"}, headers=ADMIN).status_code == 200
