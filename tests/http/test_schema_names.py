"""The schemas of the published description are named in one style."""

import re

import pytest

from app.api.application import all_routes, document

OTHER_STYLE = re.compile(r"Shown|Listed|^New[A-Z]|Changes\b|[a-z]In\b|(Input|Output)$")
BODY = re.compile(r"\w+(Create|Update|Request)")
STYLE = (
    "Name a schema after its resource: `Project`, with `ProjectCreate` and `ProjectUpdate` for request bodies, "
    "and `SkipRequest` for the body of an action. A list is `Page[Project]`, or `MemberList` if it has no pages."
)
BODIES = [route for route in all_routes() if route.body]


@pytest.mark.parametrize("name", document(asks_who=True)["components"]["schemas"])
def test_a_schema_is_named_after_its_resource(name: str) -> None:
    assert not OTHER_STYLE.search(name.strip("_").rpartition("_")[2]), STYLE


@pytest.mark.parametrize("route", BODIES, ids=lambda route: f"{route.method} {route.rule}")
def test_a_request_body_is_named_after_what_it_asks_for(route) -> None:
    assert BODY.fullmatch(route.body.__name__), STYLE


def test_no_answer_is_named_like_a_request_body() -> None:
    names = {getattr(route.returns, "__name__", "") for route in all_routes()}

    assert [name for name in names if BODY.fullmatch(name)] == [], STYLE
