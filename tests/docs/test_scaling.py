"""docs/scaling.md computes what it says from the table of docs/performance.md.

`python -m tests.docs.test_scaling` writes its figures anew.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import Settings
from app.models import Entity
from app.services import listing
from bench.parts import PARTS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "scaling.md"
SCALES = (10_000, 1_000_000, 100_000_000)
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<rest>.*) \|$", re.MULTILINE)
Names = dict[str, float]


def section(page: str, title: str) -> str:
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(page: str, title: str) -> Iterator[tuple[str, list[str]]]:
    for row in ROW.finditer(section(page, title)):
        yield row["name"], row["rest"].split(" | ")


def number(cell: str) -> float:
    """The number in a cell such as `11,779 /s` or `psycopg: 1.37`."""
    found = re.search(r"[\d,]+(?:\.\d+)?", cell.rpartition(": ")[2])
    return float(found[0].replace(",", "")) if found else math.nan


def measured(row: str, column: str) -> float:
    """A figure of the table of the bench."""
    table = (ROOT / "docs" / "performance.md").read_text()
    found = re.search(
        rf"^\| {re.escape(row)} \| (?P<Value>[^|]*) \| (?P<Baseline>[^|]*) \|", table, re.MULTILINE
    )
    assert found, f"docs/performance.md has no row '{row}'"
    return number(found[column])


def short(value: float) -> str:
    """A number of two digits."""
    if value < 0.01:
        return "< 0.01"
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def rewritten(page: str) -> str:
    """The page with its figures computed anew."""
    known: Names = {name: number(cells[0]) for name, cells in rows(page, "What is assumed")}
    for name, (_, row, column) in rows(page, "What one core does"):
        known[name] = measured(row, column)
        page = page.replace(line_of(page, name), f"| `{name}` | {known[name]:,g} | {row} | {column} |")
    at: dict[int, Names] = {day: {**known, "day": day} for day in SCALES}
    for name, (what, formula, *_) in rows(page, "What follows"):
        for names in at.values():
            names[name] = evaluated(formula.strip("`"), names)
        shown = " | ".join(short(at[day][name]) for day in SCALES)
        page = page.replace(line_of(page, name), f"| `{name}` | {what} | {formula} | {shown} |")
    return page


def line_of(page: str, name: str) -> str:
    found = re.search(rf"^\| `{name}` \|.*$", page, re.MULTILINE)
    assert found
    return found[0]


def evaluated(formula: str, names: Names) -> float:
    allowed = {"__builtins__": {}, "ceil": math.ceil, "max": max}
    return float(eval(formula, allowed, names))  # noqa: S307 -- a formula of our own page


PAGE = FILE.read_text()


def test_its_figures_follow_from_those_of_the_bench() -> None:
    assert rewritten(PAGE) == PAGE, (
        "Run `.venv/bin/python -m tests.docs.test_scaling`, and read what follows."
    )


def test_it_derives_what_it_says_from_rows_of_the_bench() -> None:
    named = {cells[1] for _, cells in rows(PAGE, "What one core does")}

    assert named <= {row.name for part in PARTS.values() for row in part.rows}
    assert len(list(rows(PAGE, "What follows"))) > 15


@pytest.mark.parametrize(
    ("name", "expected"),
    [("pool", Settings().database_pool_size), ("sweep_s", Settings().sweep_seconds)],
)
def test_it_assumes_the_default_settings(name: str, expected: float) -> None:
    assert dict(rows(PAGE, "What is assumed"))[name][0] == f"{expected:g}"


def test_the_settings_that_it_names_are_there() -> None:
    fields = {f"WORKSPACES_{name.upper()}" for name in Settings.model_fields}

    assert set(re.findall(r"`(WORKSPACES_\w+)`", PAGE)) <= fields


def test_all_unique_keys_but_the_primary_one_have_the_key_of_a_partition() -> None:
    table = Entity.__table__
    unique = {
        str(one.name): {column.name for column in one.columns}
        for one in (*table.constraints, *table.indexes)
        if getattr(one, "unique", False) or type(one).__name__ in {"UniqueConstraint", "PrimaryKeyConstraint"}
    }

    lacking = {name for name, columns in unique.items() if "workspace_id" not in columns}
    assert lacking == {"pk_entities"}, "Say in docs/scaling.md what partitions of `entities` would need."
    assert all(f"`{name}`" in PAGE for name in unique.keys() - lacking)


def test_the_limits_of_a_sweep_are_those_of_the_code() -> None:
    [limit] = re.findall(r"^\| kept counts \| ([\d,]+) changes per sweep", PAGE, re.MULTILINE)

    assert number(limit) == listing._FOLDED_AT_ONCE


def test_it_is_short() -> None:
    assert len(PAGE.splitlines()) <= 200


if __name__ == "__main__":
    FILE.write_text(rewritten(PAGE))
