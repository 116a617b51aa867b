"""The filter parameter of every list, in its three syntaxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement

from app.filters.ast import MAX_LENGTH, BadFilter, Node, require_few
from app.filters.bracket_syntax import parse_brackets
from app.filters.fields import Fields
from app.filters.json_syntax import parse_json
from app.filters.sql import condition
from app.filters.text_syntax import parse_text


@dataclass(frozen=True)
class Filter:
    """A parsed filter. Its fields are checked when it is compiled for a list."""

    root: Node

    def compile(self, fields: Fields) -> ColumnElement[bool]:
        """The condition for WHERE. Raises BadFilter for an unknown field or a value of the wrong type."""
        return condition(self.root, fields)

    def canonical(self) -> dict[str, Any]:
        """The filter in the JSON syntax with every operator explicit, as the answer repeats it."""
        return self.root.canonical()


def parse_filter(args: Mapping[str, Sequence[str]], *, alias: str | None = None) -> Filter | None:
    """Read `filter=<JSON or text>` or `filter[…]=…` from query parameters; None if there is neither.

    `alias` is another name of the parameter. Raises BadFilter.
    """
    names = ("filter", alias) if alias else ("filter",)
    texts = [text for name in names for text in args.get(name, ()) if text]
    prefixes = tuple(f"{name}[" for name in names)
    brackets = {key: values for key, values in args.items() if key.startswith(prefixes)}
    if len(texts) + bool(brackets) > 1:
        raise BadFilter("Give one filter: either filter=… once, or filter[field]=… keys.")
    if len("".join([*texts, *brackets, *chain.from_iterable(brackets.values())])) > MAX_LENGTH:
        raise BadFilter(f"The filter is longer than {MAX_LENGTH} characters.")
    if not (brackets or texts):
        return None
    root = parse_brackets(brackets) if brackets else _parse(texts[0])
    require_few(root)
    return Filter(root)


def _parse(text: str) -> Node:
    return parse_json(text) if text.lstrip().startswith("{") else parse_text(text)
