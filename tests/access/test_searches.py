"""Searches in documents by one caller leave threads to all others."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests import factories
from tests.support.people import announced

ENTITIES = "/apis/entities/v2/workspaces/ml-team/entities/thing"
ANN, BOB = announced("ann"), announced("bob")
SEARCHES = [
    {"filter": "data.v:1"},
    {"search": "data.v:1"},
    {"filter[data.v]": "1"},
    {"filter": '{"\\u0064ata": {"v": 1}}'},
    {"count_by": "data.v"},
    {"sort": "-data.v"},
]


@pytest.fixture(autouse=True)
def members(session: Session) -> None:
    workspace = factories.make_workspace(session)
    for name in ("ann", "bob"):
        factories.make_binding(session, workspace, name, "Viewer")
    session.commit()


@pytest.mark.parametrize("query", SEARCHES)
def test_a_caller_with_too_many_searches_waits_and_nobody_else_does(
    app: Flask, client: FlaskClient, query: dict[str, str]
) -> None:
    searches = app.extensions["service"].searches
    searches.limit = 1

    with searches.counted("ann"):
        refused = client.get(ENTITIES, query_string=query, headers=ANN)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert "searches" in refused.json["detail"]
        assert client.get(ENTITIES, query_string={"sort": "-name", "page": 1}, headers=ANN).status_code == 200
        assert client.get(ENTITIES, query_string=query, headers=BOB).status_code == 200

    for _ in range(2):
        assert client.get(ENTITIES, query_string=query, headers=ANN).status_code == 200


def test_a_search_that_fails_is_over(app: Flask, client: FlaskClient) -> None:
    app.extensions["service"].searches.limit = 1

    for _ in range(2):
        assert client.get(ENTITIES, query_string={"filter": "nonsense"}, headers=ANN).status_code == 400
    assert client.get(ENTITIES, query_string=SEARCHES[0], headers=ANN).status_code == 200
