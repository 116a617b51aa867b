import json
from typing import Any

import pytest
from sqlalchemy import Integer, column
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from app.filters.ast import BadFilter, Operator, compare
from app.filters.fields import Fields
from app.filters.parse import Filter, parse_filter
from tests.filters.gadgets import FIELDS, GADGETS, ROWS, ids_of


def understood(*args: tuple[str, str], **options: Any) -> Any:
    found = parse_filter(MultiDict(args).to_dict(flat=False), **options)
    return found.canonical() if found else None


def refusal(*args: tuple[str, str]) -> str:
    with pytest.raises(BadFilter) as refused:
        ids_of(*args)
    assert refused.value.status == 400
    return refused.value.message


def test_without_a_filter_there_is_none():
    assert understood() is None
    assert understood(("filter", "")) is None
    assert understood(("search", 'name:"a"')) is None


def test_a_list_may_give_the_filter_an_alias():
    assert understood(("search", 'name:"a"'), alias="search") == {"name": {"$eq": "a"}}
    assert understood(("search[name]", "a"), alias="search") == {"name": {"$eq": "a"}}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ('{"name":"a"}', {"name": {"$eq": "a"}}),
        ('  {"name":null}', {"name": {"$eq": None}}),
        ('{"name":"a","weight":1}', {"$and": [{"name": {"$eq": "a"}}, {"weight": {"$eq": 1}}]}),
        ('{"weight":{"$gt":1,"$lt":3}}', {"$and": [{"weight": {"$gt": 1}}, {"weight": {"$lt": 3}}]}),
        ('{"status":["active","created"]}', {"status": {"$in": ["active", "created"]}}),
        ('{"name":{"$in":"a,b"}}', {"name": {"$in": ["a", "b"]}}),
        ('{"name":{"$nin":[null,"b"]}}', {"name": {"$nin": [None, "b"]}}),
        ('{"name":{"$not":{"$like":"x"}}}', {"$not": {"name": {"$like": "x"}}}),
        (
            '{"name":{"$or":[{"$eq":"a"},{"$eq":"b"}]}}',
            {"$or": [{"name": {"$eq": "a"}}, {"name": {"$eq": "b"}}]},
        ),
        ('{"$and":[{"name":"a"}]}', {"$and": [{"name": {"$eq": "a"}}]}),
        ('{"$not":{"$not":{"name":"a"}}}', {"$not": {"$not": {"name": {"$eq": "a"}}}}),
        ('{"data":{"a":{"b":{"$exists":true}}}}', {"data.a.b": {"$exists": True}}),
    ],
)
def test_the_json_syntax_is_read(text: str, canonical: object):
    assert understood(("filter", text)) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ('name:"a"', {"name": {"$eq": "a"}}),
        (' name ~ "say \\"a\\"" ', {"name": {"$like": 'say "a"'}}),
        ("weight>=-5.5e1", {"weight": {"$gte": -55.0}}),
        ("weight<5", {"weight": {"$lt": 5}}),
        ("project:NULL", {"project": {"$eq": None}}),
        ("is_sold:true", {"is_sold": {"$eq": True}}),
        ('name in ["a", null, 3]', {"name": {"$in": ["a", None, 3]}}),
        ("name NOT IN []", {"name": {"$nin": []}}),
        ('data["a"]["b c"]:1', {"data.a.b c": {"$eq": 1}}),
        ("data.a.0:1", {"data.a.0": {"$eq": 1}}),
        ("order:1 origin:2", {"$and": [{"order": {"$eq": 1}}, {"origin": {"$eq": 2}}]}),
        (
            "a:1 or b:2 AND c:3 d:4",
            {
                "$or": [
                    {"a": {"$eq": 1}},
                    {"$and": [{"b": {"$eq": 2}}, {"c": {"$eq": 3}}, {"d": {"$eq": 4}}]},
                ]
            },
        ),
        (
            "(a:1 OR b:2) -(c:3) -d:-4",
            {
                "$and": [
                    {"$or": [{"a": {"$eq": 1}}, {"b": {"$eq": 2}}]},
                    {"$not": {"c": {"$eq": 3}}},
                    {"$not": {"d": {"$eq": -4}}},
                ]
            },
        ),
    ],
)
def test_the_text_syntax_is_read(text: str, canonical: object):
    assert understood(("filter", text)) == canonical


@pytest.mark.parametrize(
    ("args", "canonical"),
    [
        ([("filter[name]", "a")], {"name": {"$eq": "a"}}),
        ([("filter[name]", "")], {"name": {"$eq": None}}),
        ([("filter[status]", "a,b")], {"status": {"$in": ["a", "b"]}}),
        ([("filter[status]", "a"), ("filter[status]", "b")], {"status": {"$in": ["a", "b"]}}),
        ([("filter[name][$like]", "a,b")], {"name": {"$like": "a,b"}}),
        ([("filter[name][$eq]", "{a}")], {"name": {"$eq": "{a}"}}),
        ([("filter[name][like]", "a")], {"name": {"$like": "a"}}),
        ([("filter[name][$in]", "a,b")], {"name": {"$in": ["a", "b"]}}),
        ([("filter[name][$in]", '["a,b"]')], {"name": {"$in": ["a,b"]}}),
        ([("filter[name][$in]", "")], {"name": {"$in": []}}),
        ([("filter[name][exists]", "true")], {"name": {"$exists": True}}),
        ([("filter[name][not][like]", "x")], {"$not": {"name": {"$like": "x"}}}),
        ([("filter[$not][name]", "x")], {"$not": {"name": {"$eq": "x"}}}),
        ([("filter[$not]", '{"name": "x"}')], {"$not": {"name": {"$eq": "x"}}}),
        ([("filter[data][x][y]", "1")], {"data.x.y": {"$eq": "1"}}),
        ([("filter[in]", "1")], {"in": {"$eq": "1"}}),
        ([("filter[$or]", '[{"name": "a"}]')], {"$or": [{"name": {"$eq": "a"}}]}),
        (
            [("filter[made_at][$gte]", "2026-01-01"), ("filter[made_at][lte]", "2026-02-01")],
            {"$and": [{"made_at": {"$gte": "2026-01-01"}}, {"made_at": {"$lte": "2026-02-01"}}]},
        ),
        # What the published SDK sends for {"$and": [{"name": "a"}, {"name": {"$in": ["it's", None]}}]}.
        (
            [("filter[$and]", "{'name': 'a'},{'name': {'$in': [\"it's\", None]}}")],
            {"$and": [{"name": {"$eq": "a"}}, {"name": {"$in": ["it's", None]}}]},
        ),
        (
            [("filter[name][$or]", "{'$eq': 'a'},{'$like': 'b'}")],
            {"$or": [{"name": {"$eq": "a"}}, {"name": {"$like": "b"}}]},
        ),
    ],
)
def test_the_bracket_syntax_is_read(args: list[tuple[str, str]], canonical: object):
    assert understood(*args) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "No valid filter criteria found"),
        ('{"name":{}}', "No valid operation found for field name"),
        ('{"name":', "Invalid JSON in filter parameter"),
        ('{"name":"a","name":"b"}', "twice"),
        ('{"weight":NaN}', "NaN"),
        ('{"weight":1e999}', "weight"),
        ('{"name":{"$ne":"a"}}', "Valid operators: $and, $or, $not, $eq"),
        ('{"$eq":"a"}', "needs a field"),
        ('{"$or":[{"name":"a"}],"name":"b"}', "'$or' cannot stand beside 'name'"),
        ('{"name":{"$not":{"$eq":"a"},"$like":"b"}}', "'$not' cannot stand beside '$like'"),
        ('{"$and":[]}', "at least one"),
        ('{"$and":{"name":"a"}}', "list"),
        ('{"name":{"$eq":["a"]}}', "must be text, a number"),
        ('{"name":{"$like":5}}', "needs text"),
        ('{"weight":{"$gt":null}}', "'$gt' on field 'weight'"),
        ('{"weight":{"$in":5}}', "list of values"),
        ('{"name":{"$exists":1}}', "true or false"),
        ('{"name":"\\u0000"}', "cannot be stored"),
        ('{"name":"\\ud800"}', "cannot be stored"),
        ('{"\\ud800":{"$ne":1}}', "must be text"),
        (" ", "cannot be empty"),
        ("name", "expected one of : ~"),
        ("name:", "expected a value"),
        ("name:unquoted", "expected a value"),
        ('name:"a" OR', "expected a field at character 12"),
        ('(name:"a"', "expected ')'"),
        ('name:"a")', "expected AND, OR or the end"),
        ('name NOT ["a"]', "expected one of"),
        ('colour:"red"', "Unknown filter field 'colour'. Valid fields: id, name"),
        (
            'data:"x"',
            "Valid fields: id, name, project, weight, status, is_sold, made_at, is_stray, data.<path>",
        ),
        ("data[" + '"a.' * 1 + '"]:1', "Unknown filter field 'data.a.'"),
        ("data." + ".".join("a" * 21) + ":1", "Unknown filter field"),
        ("name:5", "Field 'name' expects text"),
        ('made_at>"yesterday"', "Field 'made_at' expects a time in ISO 8601"),
        ('made_at>"0001-01-01T00:00:00+10:00"', "expects a time"),
        ("made_at>5", "expects a time"),
        ('made_at~"2026"', "'$like' does not apply"),
        ('id:"x"', "Field 'id' expects a UUID"),
        ("weight:1.5", "Field 'weight' expects an integer"),
        ("weight:9223372036854775808", "64 bits"),
        ("weight:true", "an integer"),
        ('weight:"1_0"', "an integer"),
        ('is_sold:"yes"', "Field 'is_sold' expects true or false"),
        ('status:"bogus"', "Field 'status' expects one of created, pending"),
        ("-" * 30 + "weight:1", "more than 20 levels"),
        ("(" * 8000, "more than 20 levels"),
        ('{"$not":' * 30 + '{"weight":1}' + "}" * 30, "more than 20 levels"),
        ('{"$not":' * 900 + "1" + "}" * 900, "nested"),
        ('name:"' + "a" * 8192 + '"', "longer than 8192"),
        (" OR ".join(['data.a~"x"'] * 33), "33 comparisons, more than the 32"),
        ("(weight:1 OR -(weight:2)) " * 17, "34 comparisons, more than the 32"),
        (json.dumps({"$or": [{"weight": {"$gt": 1, "$lt": 3}}] * 17}), "34 comparisons, more than the 32"),
        (f"weight IN [{','.join('1' * 1001)}]", "'$in' on field 'weight' has more than 1000 values"),
        (json.dumps({"weight": {"$nin": [1] * 1001}}), "'$nin' on field 'weight' has more than 1000 values"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(text: str, says: str):
    assert says in refusal(("filter", text))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([("filter", 'name:"a"'), ("filter", 'name:"b"')], "Give one filter"),
        ([("filter", 'name:"a"'), ("filter[name]", "b")], "Give one filter"),
        ([("filter[name]", "a"), ("filter[name][$like]", "b")], "contradicts"),
        ([("filter[name][$like]", "b"), ("filter[name]", "a")], "contradicts"),
        ([("filter[name][$like]", "a"), ("filter[name][$like]", "b")], "more than once"),
        ([("filter[name][$like]", "a"), ("filter[name][like]", "b")], "contradicts"),
        ([("filter[name", "a")], "not of the form"),
        ([("filter[]", "a")], "not of the form"),
        ([("filter[name]", "{a")], "not JSON"),
        ([("filter[$and]", "")], "at least one"),
        ([("filter[$and]", "a,b")], "not JSON"),
        ([("filter[$and]", "{1: 2}")], "must be text"),
        ([("filter[$and]", "-" * 8000)], "not JSON"),
        ([("filter[$and]", "{'weight': 0x" + "f" * 8000 + "}")], "cannot be stored"),
        ([("filter[$and]", "{'name': b'a'}")], "must be text"),
        ([("filter" + "[a]" * 30, "a")], "more than 20 levels"),
    ],
)
def test_brackets_that_make_no_sense_are_refused_with_the_reason(args: list[tuple[str, str]], says: str):
    assert says in refusal(*args)


def test_brackets_are_bounded_as_the_other_syntaxes():
    assert "33 comparisons" in refusal(*((f"filter[data.a{number}]", "x") for number in range(33)))
    assert "1000 values" in refusal(("filter[weight][$in]", ",".join("1" * 1001)))


def test_a_filter_may_have_as_many_comparisons_and_values_as_clients_send(gadgets: Session):
    ids = [str(row["id"]) for row in ROWS] * 7
    terms = [{"id": {"$in": ids}}, *[{"data.v": {"$nin": [1, "a"]}}] * 31]

    found = gadgets.scalars(ids_of(("filter", json.dumps({"$and": terms}, separators=(",", ":")))))

    assert len(found.all()) == len(ROWS)


def test_a_list_of_values_reads_a_document_as_often_as_one_value():
    def reads(values: list[Any]) -> int:
        compiled = Filter(compare("data.v", Operator.IN, values)).compile(FIELDS)
        return str(compiled).count("jsonb_extract_path_text(")

    assert reads(list(range(500))) == reads([1])
    assert reads([f"x{number}" for number in range(500)]) == reads(["x"])


def test_data_is_no_field_of_a_list_without_documents():
    fields = Fields(key=GADGETS.c.id, columns={"name": GADGETS.c.name})

    with pytest.raises(BadFilter, match=r"Unknown filter field 'data\.x'\. Valid fields: name\."):
        Filter(compare("data.x", Operator.EQ, 1)).compile(fields)


def test_a_list_cannot_offer_a_field_whose_values_do_not_compare():
    with pytest.raises(TypeError, match="'doc'"):
        Fields(key=column("id", Integer), columns={"doc": column("doc", JSONB)})
