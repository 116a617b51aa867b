"""Models that are found by their adapters, which are entities below them."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from app.api.entities.entities import FIELDS_OF_MODELS
from app.filters.parse import parse_filter
from app.filters.served import what_is_slow
from app.models import Entity
from tests.factories import make_entity, make_workspace

LIST = "/apis/entities/v2/workspaces/{}/entities/{}"


@pytest.fixture(autouse=True)
def models(session: Session) -> None:
    """Three models: with two adapters, with one, and with a child that is none."""
    workspace = make_workspace(session, "ml-team")

    def make(name: str, kind: str, parent: Entity | None = None, **data: Any) -> Entity:
        entity = make_entity(session, workspace, name, entity_type=kind, parent=parent)
        entity.data = data
        return entity

    two, one, none = (make(name, "model") for name in ("two", "one", "none"))
    make("lora", "adapter", two, rank=8, is_ready=True)
    make("dora", "adapter", two, rank=16)
    make("lora", "adapter", one, rank=32)
    make("lora", "note", none, rank=8)
    make("alone", "adapter", rank=8)
    other = make_workspace(session, "other")
    make_entity(session, other, "theirs", entity_type="model")
    session.commit()


def ask(client: FlaskClient, workspace: str = "ml-team", kind: str = "model", **query: str) -> Any:
    return client.get(LIST.format(workspace, kind), query_string={"sort": "name", **query})


def names(client: FlaskClient, workspace: str = "ml-team", **query: str) -> list[str]:
    answer = ask(client, workspace, **query)
    assert answer.status_code == 200, answer.text
    found = [entity["name"] for entity in answer.json["data"]]
    assert answer.json["pagination"]["total_results"] == len(found)
    return found


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({"adapters": {"$exists": True}}, ["one", "two"]),
        ({"adapters": {"$exists": False}}, ["none"]),
        ({"adapters": {"name": "dora"}}, ["two"]),
        ({"adapters": {"name": "lora"}}, ["one", "two"]),
        ({"adapters": {"data": {"rank": 32}}}, ["one"]),
        ({"adapters.data.rank": {"$gt": 8}}, ["one", "two"]),
        ({"adapters": {"name": {"$like": "ORA"}, "data.rank": {"$in": [16, 17]}}}, ["two"]),
        # Each comparison is about some adapter, not all about the same one.
        ({"adapters": {"name": "dora", "data.rank": 8}}, ["two"]),
        ({"$not": {"adapters": {"name": "dora"}}}, ["none", "one"]),
        ({"adapters": {"name": {"$nin": ["lora"]}}}, ["two"]),
        ({"adapters": {"data.is_ready": {"$exists": True}}, "name": "two"}, ["two"]),
        ({"$or": [{"name": "none"}, {"adapters": {"name": "dora"}}]}, ["none", "two"]),
    ],
)
def test_models_are_found_by_what_some_adapter_of_theirs_has(
    client: FlaskClient, criteria: dict[str, Any], expected: list[str]
) -> None:
    assert names(client, filter=json.dumps(criteria)) == expected


def test_all_three_syntaxes_ask_for_them(client: FlaskClient) -> None:
    assert names(client, **{"filter[adapters][$exists]": "true"}) == ["one", "two"]
    assert names(client, **{"filter[adapters][name]": "dora"}) == ["two"]
    assert names(client, **{"filter[adapters][data][rank][$gte]": "32"}) == ["one", "two"]
    assert names(client, filter='adapters.name:"dora"') == ["two"]


def test_they_are_asked_for_in_all_workspaces_and_counted_too(client: FlaskClient) -> None:
    assert names(client, "-", filter='{"adapters": {"$exists": false}}') == ["none", "theirs"]
    counted = ask(client, filter='{"adapters": {"$exists": true}}', count_by="data.x")
    assert counted.json["group_counts"] == {}


@pytest.mark.parametrize(
    ("kind", "criteria", "words"),
    [
        (
            "model",
            {"adapters": "lora"},
            "Field 'adapters' has no value: ask whether there are any by '$exists'",
        ),
        ("model", {"adapters": {"$like": "lora"}}, "Field 'adapters' has no value"),
        (
            "model",
            {"adapters": {"nope": 1}},
            "Unknown filter field 'nope'. Valid fields: id, entity_type, name",
        ),
        ("model", {"adapter": {"$exists": True}}, "adapters.<field>"),
        ("adapter", {"adapters": {"$exists": True}}, "Unknown filter field 'adapters'"),
    ],
)
def test_what_cannot_be_asked_of_them_is_refused(
    client: FlaskClient, kind: str, criteria: dict[str, Any], words: str
) -> None:
    answer = ask(client, kind=kind, filter=json.dumps(criteria))

    assert answer.status_code == 400
    assert words in answer.json["detail"]


def test_a_list_is_not_sorted_by_them(client: FlaskClient) -> None:
    assert ask(client, sort="adapters.name").status_code == 400


def test_such_a_filter_is_named_where_a_list_takes_too_long() -> None:
    found = parse_filter({"filter[adapters][name]": ["a"]})

    assert found
    assert what_is_slow(found.root, FIELDS_OF_MODELS, sort="-created_at") == ["adapters.name ($eq)"]
