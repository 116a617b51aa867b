"""The filter parameter of every list: its three syntaxes, and what a caller does with the result."""

import ast
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement
from werkzeug.datastructures import MultiDict

from app.api.filter_ast import (
    MAX_LENGTH,
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
from app.api.filter_fields import Fields
from app.api.filter_sql import BadSort, condition, parse_sort
from app.api.filter_text import parse_text

__all__ = ["BadFilter", "BadSort", "Fields", "Filter", "parse_filter", "parse_sort"]

_LOGICAL = ("$and", "$or", "$not")
_LISTS = ("$in", "$nin")
_BARE_OPERATORS = {key.removeprefix("$") for key in (*Operator, "$not")}


@dataclass(frozen=True)
class Filter:
    """A filter that was understood; whether its fields exist is known when it meets a list."""

    root: Node

    def compile(self, fields: Fields) -> ColumnElement[bool]:
        """The condition for WHERE. Raises BadFilter for an unknown field or a value of the wrong kind."""
        return condition(self.root, fields)

    def canonical(self) -> dict[str, Any]:
        """The filter in the JSON syntax, every operator spelled out: what the answer echoes."""
        return self.root.canonical()


def parse_filter(args: MultiDict[str, str], *, alias: str | None = None) -> Filter | None:
    """Read `filter=<JSON or text>` or `filter[…]=…` from a query string; None if there is neither.

    `alias` is another name the parameter goes by. Raises BadFilter.
    """
    names = ("filter", alias) if alias else ("filter",)
    texts = [text for name in names for text in args.getlist(name) if text]
    brackets = {key: args.getlist(key) for key in args if key.startswith(tuple(f"{name}[" for name in names))}
    if len(texts) + bool(brackets) > 1:
        raise BadFilter("Give one filter: either filter=… once, or filter[field]=… keys.")
    if len("".join([*texts, *brackets, *chain.from_iterable(brackets.values())])) > MAX_LENGTH:
        raise BadFilter(f"The filter is longer than {MAX_LENGTH} characters.")
    if brackets:
        return Filter(_read(_tree(brackets), depth=0))
    if texts:
        return Filter(_parse(texts[0]))
    return None


def _parse(text: str) -> Node:
    if not text.lstrip().startswith("{"):
        return parse_text(text)
    try:
        criteria = _from_json(text)
    except ValueError as error:
        raise BadFilter(f"Invalid JSON in filter parameter: {error}") from None
    return _read(criteria, depth=0)


def _read(criteria: object, *, depth: int, field: str | None = None) -> Node:
    """The tree behind `{"a": …, "$or": […]}`, or behind `{"$gt": …, "$not": …}` once `field` is known."""
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
        return Not(_read(value, depth=depth, field=field))
    if key in _LOGICAL:
        if not isinstance(value, list | tuple) or not value:
            raise BadFilter(f"'{key}' needs a list of at least one condition.")
        terms = tuple(_read(item, depth=depth, field=field) for item in value)
        return And(terms) if key == "$and" else Or(terms)
    if not key.startswith("$"):
        return _read(value, depth=depth, field=f"{field}.{key}" if field else key)
    if key not in list(Operator):
        valid = ", ".join((*_LOGICAL, *Operator))
        raise BadFilter(f"'{key}' is not a valid operator. Valid operators: {valid}.")
    if not field:
        raise BadFilter(f'\'{key}\' needs a field: {{"<field>": {{"{key}": …}}}}.')
    return compare(field, Operator(key), value)


def _tree(brackets: dict[str, list[str]]) -> dict[str, Any]:
    """The JSON form of `filter[a][$gt]=1` keys."""
    tree: dict[str, Any] = {}
    for key, values in brackets.items():
        *outer, last = _steps(key)
        node = tree
        for step in outer:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise BadFilter(f"'{key}' contradicts another key of the filter.")
        if last in node:
            raise BadFilter(f"'{key}' contradicts another key of the filter.")
        node[last] = _leaf(key, last, values)
    return tree


def _steps(key: str) -> Iterable[str]:
    """`filter[a][gt]` → `a`, `$gt`: below a field, operators may go without the `$`."""
    if not re.fullmatch(r"\w+(?:\[[^\[\]]+\])+", key):
        raise BadFilter(f"'{key}' is not of the form filter[field] or filter[field][$operator].")
    below_field = False
    for step in re.findall(r"\[([^\[\]]+)\]", key):
        yield f"${step}" if below_field and step in _BARE_OPERATORS else step
        below_field = below_field or not step.startswith("$")


def _leaf(key: str, last: str, values: list[str]) -> object:
    if len(values) > 1:
        if last in _LISTS or not last.startswith("$"):
            return values
        raise BadFilter(f"'{key}' is given more than once.")
    [text] = values
    if last in ("$and", "$or"):
        # The SDK joins a list with commas and leaves the brackets away.
        return _literal(key, text if text.startswith("[") else f"[{text}]")
    if text.startswith(("{", "[")) and (last in (*_LISTS, "$not") or not last.startswith("$")):
        return _literal(key, text)
    if not text and (last == "$eq" or not last.startswith("$")):
        return None
    if "," in text and not last.startswith("$"):
        return text.split(",")
    return text


def _literal(key: str, text: str) -> object:
    """JSON, or what Python prints for the same value: the SDK sends dicts inside a list like that."""
    try:
        return _from_json(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise BadFilter(f"The value of '{key}' is not JSON.") from None


def _from_json(text: str) -> object:
    """Like json.loads, but refuses what it would let through or drop. Raises ValueError or BadFilter."""
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
    raise BadFilter(f"{name} is not a value that JSON knows.")
