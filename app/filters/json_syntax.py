"""The JSON syntax of filters."""

import json
from typing import Any

from app.filters.ast import (
    And,
    BadFilter,
    Node,
    Not,
    Operator,
    Or,
    all_of,
    compare,
    deeper,
    is_storable,
)

_LOGICAL = ("$and", "$or", "$not")


def parse_json(text: str) -> Node:
    """The tree of a filter such as `{"name": {"$like": "a"}}`. Raises BadFilter."""
    try:
        criteria = load_json(text)
    except ValueError as error:
        raise BadFilter(f"Invalid JSON in filter parameter: {error}") from None
    return read_criteria(criteria, depth=0)


def read_criteria(criteria: object, *, depth: int, field: str | None = None) -> Node:
    """The tree of `{"a": …, "$or": […]}`, or of `{"$gt": …, "$not": …}` once `field` is known."""
    if field and not isinstance(criteria, dict):
        return compare(field, Operator.IN if isinstance(criteria, list | tuple) else Operator.EQ, criteria)
    if not isinstance(criteria, dict):
        raise BadFilter("A condition must be an object that names fields.")
    if not criteria:
        raise BadFilter(
            f"No valid operation found for field {field}" if field else "No valid filter criteria found"
        )
    for key in _LOGICAL:
        if key in criteria and len(criteria) > 1:
            others = ", ".join(repr(other) for other in criteria if other != key)
            raise BadFilter(f"'{key}' cannot stand beside {others}: join them with '$and'.")
    return all_of([_read_entry(key, value, deeper(depth), field) for key, value in criteria.items()])


def _read_entry(key: object, value: object, depth: int, field: str | None) -> Node:
    if not isinstance(key, str) or not is_storable(key):
        raise BadFilter("Fields and operators must be text.")
    if key == "$not":
        return Not(read_criteria(value, depth=depth, field=field))
    if key in _LOGICAL:
        if not isinstance(value, list | tuple) or not value:
            raise BadFilter(f"'{key}' needs a list of at least one condition.")
        terms = tuple(read_criteria(item, depth=depth, field=field) for item in value)
        return And(terms) if key == "$and" else Or(terms)
    if not key.startswith("$"):
        return read_criteria(value, depth=depth, field=f"{field}.{key}" if field else key)
    if key not in list(Operator):
        valid = ", ".join((*_LOGICAL, *Operator))
        raise BadFilter(f"'{key}' is not a valid operator. Valid operators: {valid}.")
    if not field:
        raise BadFilter(f'\'{key}\' needs a field: {{"<field>": {{"{key}": …}}}}.')
    return compare(field, Operator(key), value)


def load_json(text: str) -> object:
    """Like json.loads, but refuses repeated keys and NaN. Raises ValueError or BadFilter."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except RecursionError:
        raise BadFilter("The filter is nested too deeply.") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    criteria = dict(pairs)
    if len(criteria) < len(pairs):
        raise BadFilter("A key appears twice in one object of the filter; join the conditions with '$and'.")
    return criteria


def _refuse_constant(name: str) -> None:
    raise BadFilter(f"{name} is not a JSON value.")
