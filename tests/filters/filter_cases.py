"""Filters for property tests, and what each of them means, told by plain Python."""

import json
import operator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from app.filters.ast import And, Compare, Node, Not, Operator, Or, compare
from app.lifecycle import JobStatus
from tests.filters.gadgets import NAMES, PROJECTS, VALUES, WEIGHTS

# The table is only read, so examples may share it.
shared_table = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_ORDERINGS = {
    Operator.LT: operator.lt,
    Operator.LTE: operator.le,
    Operator.GT: operator.gt,
    Operator.GTE: operator.ge,
}
_TIMES = ["2026-01-31", "2026-01-31T09:30:00.000001Z", "2026-01-31T11:30+02:00", "2027-01-01T00:00:00"]
VALUES_OF: dict[str, list[Any]] = {
    "name": [*NAMES, "D", "ill", "other"],
    "project": [project for project in PROJECTS if project] + ["other"],
    "weight": [weight for weight in WEIGHTS if weight is not None] + ["5", 2**40],
    "status": [status.value for status in JobStatus][:6],
    "is_sold": [True, False, "true"],
    "is_stray": [True, False, "false"],
    "made_at": _TIMES,
    "id": [str(UUID(int=index)) for index in range(5)],
    "data.v": [value for value in VALUES if isinstance(value, str | int | float)],
    "data.v.deep": [7, "7", 8],
    "data.v.1": ["x", 5],
    "data.missing": ["x", 5],
}
_ORDERED = {"name", "weight", "made_at", "id", "data.v", "data.v.deep"}
_TEXTUAL = {"name", "project", "data.v", "data.missing", "id", "status"}


@st.composite
def comparisons(draw: st.DrawFn) -> Compare:
    field = draw(st.sampled_from(sorted(VALUES_OF)))
    values = st.sampled_from(VALUES_OF[field])
    kinds = [
        "equal",
        "among",
        "exists",
        *(["ordered"] * (field in _ORDERED)),
        *(["like"] * (field in _TEXTUAL)),
    ]
    match draw(st.sampled_from(kinds)):
        case "equal":
            return compare(field, Operator.EQ, draw(values | st.none()))
        case "among":
            among = draw(st.lists(values | st.none(), max_size=3))
            return compare(field, draw(st.sampled_from([Operator.IN, Operator.NIN])), among)
        case "exists":
            return compare(field, Operator.EXISTS, draw(st.booleans()))
        case "like":
            return compare(
                field, Operator.LIKE, draw(st.sampled_from(["", "D", "%", "_", "\\", "5", "0", "x"]))
            )
    ordered = draw(values.filter(lambda value: not isinstance(value, bool)))
    return compare(field, draw(st.sampled_from(list(_ORDERINGS))), ordered)


def several(nodes: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    terms = st.lists(nodes, min_size=2, max_size=3).map(tuple)
    return terms.map(And) | terms.map(Or) | nodes.map(Not)


nodes: st.SearchStrategy[Node] = st.recursive(comparisons(), several, max_leaves=6)


def holds(node: Node, row: dict[str, Any]) -> bool:
    match node:
        case And(terms):
            return all(holds(term, row) for term in terms)
        case Or(terms):
            return any(holds(term, row) for term in terms)
        case Not(term):
            return not holds(term, row)
    return compares(node, stored_value(node.field, row))


def compares(node: Compare, stored: Any) -> bool:
    match node.operator, node.value:
        case Operator.EXISTS, value:
            return (stored is not None) == value
        case ((Operator.IN | Operator.NIN), tuple(values)):
            is_among = any(is_equal(node.field, stored, value) for value in values)
            return is_among == (node.operator is Operator.IN)
        case Operator.EQ, value:
            return is_equal(node.field, stored, value)
        case Operator.LIKE, str(value):
            return stored is not None and value.lower() in shown(stored).lower()
    if stored is None:
        return False
    left, right = comparable(node.field, stored, node.value)
    return type(left) is type(right) and _ORDERINGS[node.operator](left, right)


def stored_value(field: str, row: dict[str, Any]) -> Any:
    base, *path = field.split(".")
    value = row[base]
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        else:
            value = value[int(key)] if isinstance(value, list) and key.isdigit() else None
    return value


def is_equal(field: str, stored: Any, value: Any) -> bool:
    if stored is None or value is None:
        return stored is value
    left, right = comparable(field, stored, value)
    return left == right if type(left) is type(right) else shown(stored) == shown(value)


def comparable(field: str, stored: Any, value: Any) -> tuple[Any, Any]:
    if field.startswith("data."):
        return (numeric(stored), numeric(value)) if is_number(value) else (shown(stored), shown(value))
    match stored:
        case bool():
            return stored, value in (True, "true")
        case int():
            return stored, int(value)
        case datetime():
            moment = datetime.fromisoformat(value)
            return stored, moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        case UUID():
            return stored, UUID(value)
    return str(stored), str(value)


def numeric(value: Any) -> Any:
    return Decimal(str(value)) if is_number(value) else value


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    return str(value) if isinstance(value, str | UUID) else json.dumps(value)
