import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from app.filters.ast import And, BadFilter, Node, Not, Operator, Or
from app.filters.parse import Filter, parse_filter
from tests.filters.filter_cases import VALUES_OF, nodes, shared_table
from tests.filters.gadgets import FIELDS, GADGETS

_SYMBOLS = {
    "$eq": ":",
    "$like": "~",
    "$lt": "<",
    "$lte": "<=",
    "$gt": ">",
    "$gte": ">=",
    "$in": " IN ",
    "$nin": " NOT IN ",
}


def as_text(node: Node) -> str:
    match node:
        case And(terms):
            return "(" + " AND ".join(map(as_text, terms)) + ")"
        case Or(terms):
            return "(" + " OR ".join(map(as_text, terms)) + ")"
        case Not(term):
            return "-" + as_text(term)
    value = json.dumps(node.value, ensure_ascii=False)
    return f"{node.field}{_SYMBOLS[node.operator]}{value}"


def as_sdk_brackets(node: Node) -> tuple[str, str]:
    match node.canonical():
        case {"$and": list(terms)}:
            return "filter[$and]", ",".join(map(str, terms))
        case {"$or": list(terms)}:
            return "filter[$or]", ",".join(map(str, terms))
        case {"$not": term}:
            return "filter[$not]", str(term)
        case canonical:
            [(field, condition)] = canonical.items()
            return f"filter[{field}]", str(condition)


def mentions_exists(node: Node) -> bool:
    return "$exists" in json.dumps(node.canonical())


@given(node=nodes.filter(lambda node: not mentions_exists(node)))
def test_the_three_syntaxes_agree(node: Node):
    in_json = parse_filter(MultiDict([("filter", json.dumps(node.canonical()))]).to_dict(flat=False))
    in_text = parse_filter(MultiDict([("filter", as_text(node))]).to_dict(flat=False))
    in_brackets = parse_filter(MultiDict([as_sdk_brackets(node)]).to_dict(flat=False))

    assert in_json == in_text == in_brackets == Filter(node)


_alphabet = st.sampled_from("a:\"~<>=[](){}-, \\'$15.eE\0\ud800É%_\n")
_words = st.sampled_from(
    [
        *VALUES_OF,
        *Operator,
        "$and",
        "$or",
        "$not",
        "$ne",
        " AND ",
        " OR ",
        " IN ",
        "NOT ",
        '"x"',
        "null",
        "{",
        "}",
    ]
)
garbage = st.lists(_alphabet | _words, max_size=12).map("".join) | st.text(max_size=20)
_keys = st.lists(_words | st.text(max_size=3), min_size=1, max_size=3).map(
    lambda steps: "filter" + "".join(f"[{step}]" for step in steps)
)
_any_scalar = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**62)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(
        ["2026-01-31", "0001-01-01T00:00+23:59", "9999-12-31T23:59:59-01:00", "active", "a\0", "\udfff"]
    )
)
any_criteria = st.recursive(
    _any_scalar,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_words | st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=8,
)


def run(session: Session, args: list[tuple[str, str]]) -> None:
    """Take the filter as far as it goes: all the way into the database, if it is not refused."""
    try:
        found = parse_filter(MultiDict(args).to_dict(flat=False))
        wanted = found.compile(FIELDS) if found else None
    except BadFilter:
        return
    if found and wanted is not None:
        json.dumps(found.canonical()).encode()
        session.execute(select(GADGETS.c.id).where(wanted)).all()


@shared_table
@given(text=garbage)
def test_garbage_as_a_filter_is_answered_or_refused(gadgets: Session, text: str):
    run(gadgets, [("filter", text)])


@shared_table
@given(args=st.lists(st.tuples(_keys, garbage), max_size=3))
def test_garbage_in_brackets_is_answered_or_refused(gadgets: Session, args: list[tuple[str, str]]):
    run(gadgets, args)


@shared_table
@given(criteria=st.dictionaries(_words, any_criteria, max_size=2))
def test_any_json_object_is_answered_or_refused(gadgets: Session, criteria: dict[str, Any]):
    run(gadgets, [("filter", json.dumps(criteria))])
    run(gadgets, [("filter[$and]", str(criteria))])


@shared_table
@given(field=st.sampled_from(sorted(VALUES_OF)), operator_=st.sampled_from(list(Operator)), value=_any_scalar)
def test_any_value_for_any_field_is_answered_or_refused(
    gadgets: Session, field: str, operator_: Operator, value: Any
):
    run(gadgets, [("filter", json.dumps({field: {operator_: value}}))])
