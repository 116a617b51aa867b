"""Query parameters: what a route does not know is refused by name, and never answers with everything."""

import re

import pytest
from flask.testing import FlaskClient

from app.access.permissions import OPEN
from app.api.application import all_routes
from tests import factories

ASKED = [route for route in all_routes() if route.permission not in OPEN]
PUBLIC = [route for route in all_routes() if route.permission in OPEN]
JOBS = "/apis/jobs/v2/workspaces/ml-team/jobs"


@pytest.fixture(autouse=True)
def _workspace(session) -> None:
    factories.make_workspace(session)
    session.commit()


def address(route) -> str:
    rule = route.rule.replace("<jti>", f"ak_{'0' * 32}")
    return re.sub(r"<(?:\w+:)?(\w+)>", "ml-team", rule)


def named(route) -> str:
    return f"{route.method} {route.rule}"


@pytest.mark.parametrize("route", ASKED, ids=named)
def test_an_unknown_parameter_is_refused_by_name(client: FlaskClient, route) -> None:
    response = client.open(f"{address(route)}?certainly_unknown=x", method=route.method)

    assert response.status_code == 422
    [error] = response.json["detail"]
    assert (error["type"], error["loc"]) == ("extra_forbidden", ["query", "certainly_unknown"])


@pytest.mark.parametrize("route", [route for route in PUBLIC if route.rule != "/status"], ids=named)
def test_what_anybody_may_ask_ignores_parameters(client: FlaskClient, route) -> None:
    plain = client.open(address(route), method=route.method)

    assert client.open(f"{address(route)}?x=y&x=z", method=route.method).status_code == plain.status_code


def test_a_filter_that_is_none_does_not_answer_with_everything(client: FlaskClient, session) -> None:
    for wrong, name in (("status=error", "status"), ("Page_size=1", "Page_size"), ("filters=x", "filters")):
        refused = client.get(f"{JOBS}?{wrong}")
        assert (refused.status_code, refused.json["detail"][0]["loc"]) == (422, ["query", name])
    refused = client.get("/apis/entities/v2/deletions?workspace_name=x")
    assert (refused.status_code, refused.json["detail"][0]["loc"]) == (422, ["query", "workspace_name"])


@pytest.mark.parametrize(
    "query", ["page=1&page=2", "sort=name&sort=-name", "wait_role_propagation=1&page=1&page=1"]
)
def test_a_parameter_that_is_given_twice_is_refused(client: FlaskClient, query: str) -> None:
    """The first one alone would count, in silence."""
    refused = client.get(f"{JOBS}?{query}")

    assert (refused.status_code, refused.json["detail"][0]["loc"][0]) == (422, "query")
    assert "more than once" in refused.json["detail"][0]["msg"]


def test_a_search_is_another_name_for_a_filter_of_every_list(client: FlaskClient) -> None:
    for query in (
        'search=name:"x"',
        "search[name]=x",
        "filter[name][$like]=x",
        "filter[name][$in]=x&filter[name][$in]=y",
    ):
        answer = client.get(f"{JOBS}?{query}")
        assert (answer.status_code, answer.json.get("data")) == (200, []), query


@pytest.mark.parametrize(
    ("path", "kind", "ctx"),
    [
        ("?page_size=0", "greater_than_equal", {"ge": 1}),
        ("?page_size=1001", "less_than_equal", {"le": 1000}),
        ("/train/logs?limit=0", "greater_than", {"gt": 0}),
    ],
)
def test_a_limit_is_told_as_the_number_that_it_is(
    client: FlaskClient, path: str, kind: str, ctx: dict
) -> None:
    [error] = client.get(f"{JOBS}{path}").json["detail"]

    assert (error["type"], error["ctx"]) == (kind, ctx)


def test_a_value_that_is_none_of_those_listed_is_an_enum(client: FlaskClient) -> None:
    [error] = client.get("/apis/entities/v2/deletions?scope=mine").json["detail"]

    assert (error["type"], error["ctx"]) == ("enum", {"expected": "'own' or 'all'"})
