"""What a list that takes too long names: everything of its filter and its sort that no index serves."""

import json

import pytest

from app.api.entities.entities import FIELDS
from app.filters.ast import Operator
from app.filters.parse import parse_filter
from app.filters.served import what_is_slow


def slow(text: str | None, sort: str = "-created_at", **more: str) -> list[str]:
    found = parse_filter({"filter": [text]}) if text else None
    return what_is_slow(found.root if found else None, FIELDS, sort=sort, **more)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('name:"a"', []),
        ('name~"abc"', []),
        ('name~"ab"', ["name ($like)", "sort=data.v"]),
        ("data.v:1", []),
        ("data.v IN [1, 2]", []),
        ("data.v>1", ["data.v ($gt)", "sort=data.v"]),
        ("data.v:null", ["data.v ($eq)", "sort=data.v"]),
        ('data.v:"[1]"', ["data.v ($eq)", "sort=data.v"]),
        ('data.v:"[red"', []),
        ('created_by:"ann"', ["created_by ($eq)", "sort=data.v"]),
        ('name:"a" AND data.v>1', []),
        ('name:"a" OR data.v>1', ["data.v ($gt)", "sort=data.v"]),
        ('-name:"a"', ["$not name ($eq)", "sort=data.v"]),
        ('data.v NOT IN ["a"]', ["data.v ($nin)", "sort=data.v"]),
    ],
)
def test_what_no_index_serves_is_named(text: str, named: list[str]) -> None:
    assert slow(text, sort="data.v") == named


def test_sorts_by_an_indexed_field_and_narrow_lists_are_not_named() -> None:
    assert slow(None) == []
    assert slow(None, sort="created_by") == ["sort=created_by"]
    assert slow(None, count_by="data.v") == ["count_by=data.v"]


def test_more_values_than_an_index_is_asked_for_are_named() -> None:
    values = [str(number) for number in range(1000)]

    assert slow(json.dumps({"data.v": {"$in": values}})) == ["data.v ($in)"]
    assert slow(json.dumps({"name": {"$in": values}})) == []


def test_every_operator_of_every_field_is_served_or_named() -> None:
    for field in [*FIELDS.columns, "data.v"]:
        for operator in Operator:
            value = {Operator.EXISTS: True, Operator.IN: ["abc"], Operator.NIN: ["abc"]}.get(operator, "abc")
            found = slow(json.dumps({field: {operator.value: value}}))
            is_indexed = operator in FIELDS.indexed.get(field.partition(".")[0], ())
            assert found == ([] if is_indexed else [f"{field} ({operator})"])
