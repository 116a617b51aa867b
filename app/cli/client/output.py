"""What commands print: a table for people; JSON, YAML or names for programs."""

import json
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar

import click
import yaml

from app.cli.client.api import Item
from app.cli.outcome import echo
from app.terminal import printable

F = TypeVar("F", bound=Callable[..., Any])

Columns = Mapping[str, Callable[[Item], Any]]
"""The columns of a table by their titles, and what each shows of an item."""

with_format: Callable[[F], F] = click.option(
    "-o",
    "--output",
    "format_",
    type=click.Choice(["table", "json", "yaml", "name"]),
    default="table",
    show_default=True,
    help="How to print the answer; `name` is one name or id a line.",
)


def fields(*names: str, **others: Callable[[Item], Any]) -> Columns:
    """The columns that show the fields of these names as they are, and others."""
    return {**{name: itemgetter(name) for name in names}, **others}


def show_list(format_: str, items: Sequence[Item], columns: Columns, *, name: str) -> None:
    """Print items, each in a line; by `name`, which is a field, for `-o name`."""
    if format_ == "table":
        rows = [[cell(value(item)) for value in columns.values()] for item in items]
        titles = [title.upper().replace("_", " ") for title in columns]
        _aligned([titles, *rows])
    else:
        _for_programs(format_, items, [str(item[name]) for item in items])


def show_one(format_: str, item: Item, columns: Columns, *, name: str) -> None:
    """Print one item, each column in a line of its own, and each entry of a list."""
    if format_ == "table":
        rows = []
        for title, value in columns.items():
            shown = value(item)
            first, *others = shown if isinstance(shown, list) and shown else [shown]
            rows += [[title.replace("_", " "), cell(first)], *(["", cell(one)] for one in others)]
        _aligned(rows)
    else:
        _for_programs(format_, item, [str(item[name])])


def in_words(counts: Mapping[str, int]) -> str:
    """Numbers by kind, as a phrase."""
    return ", ".join(f"{kind} {number}" for kind, number in counts.items()) or "nothing"


def _for_programs(format_: str, body: Any, names: list[str]) -> None:
    match format_:
        case "json":
            click.echo(json.dumps(body, indent=2))
        case "yaml":
            click.echo(yaml.safe_dump(body, sort_keys=False), nl=False)
        case _:
            for one in names:
                echo(cell(one))


def _aligned(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        echo("  ".join(padded).rstrip())


def cell(value: Any) -> str:
    """A value as people read it, in one line and in printable signs."""
    if value in (None, "", [], {}):
        return "-"
    match value:
        case bool():
            return "yes" if value else "no"
        case dict():
            return in_words(value)
        case list():
            return ", ".join(cell(one) for one in value)
    # A line break would begin a row that is none.
    return printable(" ".join(str(value).split()))
