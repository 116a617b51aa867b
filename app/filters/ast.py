"""The tree of comparisons that all three syntaxes of a filter produce."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.errors import BadRequest

MAX_LENGTH = 8192
"""Characters of one filter. It bounds the size of every tree, far above any filter written by hand."""

MAX_DEPTH = 20
"""Levels of nesting of one filter, and of one `data.<path>`. It bounds every recursion here."""


MAX_COMPARISONS = 32
"""Comparisons in one filter. Each is made with every row of the list, and may read the row's document anew."""

MAX_VALUES = 1000
"""Values of one `$in` or `$nin`, which is one comparison."""


class BadFilter(BadRequest):
    """The filter is invalid."""


class Operator(StrEnum):
    """The comparisons of a field with a value."""

    EQ = "$eq"
    LIKE = "$like"
    LT = "$lt"
    LTE = "$lte"
    GT = "$gt"
    GTE = "$gte"
    IN = "$in"
    NIN = "$nin"
    EXISTS = "$exists"


EQUALITY = frozenset({Operator.EQ, Operator.IN})
RANGES = EQUALITY | {Operator.LT, Operator.LTE, Operator.GT, Operator.GTE}

Scalar = str | int | float | bool | None
Value = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True)
class Compare:
    """`field operator value`. Made by `compare`, which checks the value."""

    field: str
    operator: Operator
    value: Value

    def canonical(self) -> dict[str, Any]:
        """The comparison in the JSON syntax."""
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {self.field: {self.operator.value: value}}


@dataclass(frozen=True)
class And:
    """All of the terms hold."""

    terms: tuple["Node", ...]

    def canonical(self) -> dict[str, Any]:
        """The conjunction in the JSON syntax."""
        return {"$and": [term.canonical() for term in self.terms]}


@dataclass(frozen=True)
class Or:
    """At least one of the terms holds."""

    terms: tuple["Node", ...]

    def canonical(self) -> dict[str, Any]:
        """The disjunction in the JSON syntax."""
        return {"$or": [term.canonical() for term in self.terms]}


@dataclass(frozen=True)
class Not:
    """The exact complement of the term, including rows where the field is null."""

    term: "Node"

    def canonical(self) -> dict[str, Any]:
        """The negation in the JSON syntax."""
        return {"$not": self.term.canonical()}


Node = And | Or | Not | Compare


def require_few(root: Node) -> None:
    """Raise BadFilter if the tree has more than `MAX_COMPARISONS`."""
    number = _comparisons(root)
    if number > MAX_COMPARISONS:
        raise BadFilter(
            f"The filter has {number} comparisons, more than the {MAX_COMPARISONS} that are allowed; "
            "compare a field with several values by one '$in'."
        )


def _comparisons(node: Node) -> int:
    match node:
        case And(terms) | Or(terms):
            return sum(map(_comparisons, terms))
        case Not(term):
            return _comparisons(term)
        case Compare():
            return 1


def all_of(terms: list[Node]) -> Node:
    """The terms joined by AND; a single term as it is."""
    return terms[0] if len(terms) == 1 else And(tuple(terms))


def deeper(depth: int) -> int:
    """The next level of nesting. Raises BadFilter beyond `MAX_DEPTH`."""
    if depth >= MAX_DEPTH:
        raise BadFilter(f"The filter is nested more than {MAX_DEPTH} levels deep.")
    return depth + 1


def compare(field: str, operator: Operator, value: object) -> Compare:
    """A comparison whose value has the type that its operator needs. Raises BadFilter.

    `$in` and `$nin` also take `"a,b"`, `$exists` also takes `"true"`: query strings contain only text.
    """
    if not is_storable(field):
        raise BadFilter("A field name contains characters that no field can have.")
    match operator:
        case Operator.IN | Operator.NIN:
            items = _split(value) if isinstance(value, str) else value
            if not isinstance(items, list | tuple):
                raise BadFilter(f"'{operator}' on field '{field}' needs a list of values.")
            if len(items) > MAX_VALUES:
                raise BadFilter(f"'{operator}' on field '{field}' has more than {MAX_VALUES} values.")
            return Compare(field, operator, tuple(_scalar(field, item) for item in items))
        case Operator.EXISTS:
            flags = {True: True, False: False, "true": True, "false": False}
            if not isinstance(value, bool | str) or value not in flags:
                raise BadFilter(f"'$exists' on field '{field}' needs true or false.")
            return Compare(field, operator, flags[value])
        case Operator.LIKE:
            if not isinstance(value, str):
                raise BadFilter(f"'$like' on field '{field}' needs text.")
        case Operator.LT | Operator.LTE | Operator.GT | Operator.GTE:
            if value is None or isinstance(value, bool):
                raise BadFilter(f"'{operator}' on field '{field}' needs text, a number or a time.")
        case Operator.EQ:
            pass
    return Compare(field, operator, _scalar(field, value))


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text: no NUL, no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _split(text: str) -> list[str]:
    return text.split(",") if text else []


def _scalar(field: str, value: object) -> Scalar:
    match value:
        case None | bool():
            return value
        case str() if is_storable(value):
            return value
        # Up to the largest double, the common limit of JSON numbers.
        case int() if value.bit_length() <= 1024:
            return value
        case float() if math.isfinite(value):
            return value
        case str() | int() | float():
            raise BadFilter(f"The value of field '{field}' cannot be stored, so no row can match it.")
    raise BadFilter(f"The value of field '{field}' must be text, a number, true, false or null.")
