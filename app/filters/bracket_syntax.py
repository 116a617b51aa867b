"""The bracket syntax of filters in the keys of a query string: `filter[name][$like]=a`."""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.filters.ast import BadFilter, Node, Operator
from app.filters.json_syntax import load_json, read_criteria

_LISTS = ("$in", "$nin")


_BARE_OPERATORS = {key.removeprefix("$") for key in (*Operator, "$not")}


def parse_brackets(brackets: Mapping[str, Sequence[str]]) -> Node:
    """The tree of a filter such as `filter[name][$like]=a&filter[status]=x,y`. Raises BadFilter."""
    return read_criteria(_tree(brackets), depth=0)


def _tree(brackets: Mapping[str, Sequence[str]]) -> dict[str, Any]:
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
    """`filter[a][gt]` → `a`, `$gt`: below a field, operators need no `$`."""
    if not re.fullmatch(r"\w+(?:\[[^\[\]]+\])+", key):
        raise BadFilter(f"'{key}' is not of the form filter[field] or filter[field][$operator].")
    below_field = False
    for step in re.findall(r"\[([^\[\]]+)\]", key):
        yield f"${step}" if below_field and step in _BARE_OPERATORS else step
        below_field = below_field or not step.startswith("$")


def _leaf(key: str, last: str, values: Sequence[str]) -> object:
    if len(values) > 1:
        if last in _LISTS or not last.startswith("$"):
            return values
        raise BadFilter(f"'{key}' is given more than once.")
    [text] = values
    if last in ("$and", "$or"):
        # The SDK joins a list with commas and omits the brackets.
        return _literal(key, text if text.startswith("[") else f"[{text}]")
    if text.startswith(("{", "[")) and (last in (*_LISTS, "$not") or not last.startswith("$")):
        return _literal(key, text)
    if not text and (last == "$eq" or not last.startswith("$")):
        return None
    if "," in text and not last.startswith("$"):
        return text.split(",")
    return text


def _literal(key: str, text: str) -> object:
    """A value in JSON, or in Python's notation, in which the SDK sends dicts inside a list."""
    try:
        return load_json(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise BadFilter(f"The value of '{key}' is not JSON.") from None
