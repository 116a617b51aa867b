"""What the bench makes of its measurements: a table, a JSON file, and a line for each row, measured or not."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.api.application import all_routes, document
from bench import NotMeasured, OutOfTime
from bench.bare import PATH
from bench.figures import Figure, Goal, Row
from bench.parts import PARTS
from bench.report import as_json, markdown
from bench.run import SCALES, Part, Run

ROOT = Path(__file__).parents[2]
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()

FAST = Row("fast", "ms", "bare", (Goal(2.5),))
SLOW = Row("slow", "/s", "plain", (Goal(30, is_upper=False, of_value=True), Goal(0.5, is_upper=False)))
LATE = Row("late", "s", "plain", (Goal(1),))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run(SCALES["tiny"], tmp_path) as run:
        yield run


def measured(run: Run, error: Exception | None = None) -> list[Figure]:
    """The figures of a part that measures two of its three rows, and then fails or ends."""

    def measure(_: Run) -> Iterator[Figure]:
        yield Figure(FAST, 2, 1)
        yield Figure(SLOW, 31, 100)
        if error:
            raise error

    return list(run.measure(Part("a part", (FAST, SLOW, LATE), measure, usual_s=7)))


def test_the_table_shows_value_baseline_ratio_and_whether_the_goals_are_met(run: Run) -> None:
    lines = markdown(measured(run)).splitlines()

    assert lines[0] == "| What | Value | Baseline | Ratio | Goal | Met |"
    assert lines[2:4] == [
        "| fast | 2 ms | bare: 1 | 2 | ratio ≤ 2.5 | yes |",
        "| slow | 31 /s | plain: 100 | 0.31 | value ≥ 30, ratio ≥ 0.5 | **no** |",
    ]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (None, "it has no result"),
        (OutOfTime(), f"not within the {SCALES['tiny'].total_s:.0f} s of its part"),
        (NotMeasured("the answer\nis 503"), "the answer is 503"),
        (ValueError("broken"), "ValueError: broken"),
    ],
    ids=["nothing yielded", "time", "known", "unknown"],
)
def test_a_row_without_a_figure_says_why(run: Run, error: Exception | None, why: str) -> None:
    figures = measured(run, error)

    assert markdown(figures).splitlines()[-1] == f"| late | not measured: {why} | plain | - | ratio ≤ 1 | - |"
    assert [one.is_met for one in figures] == [True, False, None]


def test_the_json_has_what_the_table_has(run: Run) -> None:
    made = json.loads(json.dumps(as_json(measured(run), cores=2)))

    assert made["cores"] == 2
    assert [(row["name"], row["value"], row["baseline"], row["ratio"]) for row in made["rows"]] == [
        ("fast", 2, 1, 2),
        ("slow", 31, 100, 0.31),
        ("late", None, None, None),
    ]
    assert made["rows"][1]["goals"] == ["value ≥ 30", "ratio ≥ 0.5"]


def test_rows_have_names_of_their_own() -> None:
    names = [row.name for part in PARTS.values() for row in part.rows]

    assert len(names) == len(set(names))


def test_the_parts_end_in_a_quarter_of_an_hour() -> None:
    assert sum(part.usual_s for part in PARTS.values()) <= SCALES["usual"].total_s <= 15 * 60


def test_a_part_leaves_what_it_does_not_need_and_takes_none_of_the_time_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, given = [0.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0], strftime=time.strftime)
    monkeypatch.setattr("bench.run.time", clock)

    def part(usual_s: float, takes_s: float) -> Part:
        def measure(run: Run) -> Iterator[Figure]:
            given.append(run.deadline - now[0])
            now[0] += takes_s
            yield Figure(FAST, 2, 1)

        return Part("a part", (FAST,), measure, usual_s=usual_s)

    with Run(replace(SCALES["usual"], total_s=100), tmp_path) as run:
        list(run.measure(part(20, 20), part(20, 50), part(30, 0), part(30, 0)))

    assert given == [20, 20, 15, 30]


def test_every_row_is_in_the_document_on_performance() -> None:
    told = set(re.findall(r"^\| ([^|]+?) \|", PERFORMANCE, re.MULTILINE))
    names = {row.name for part in PARTS.values() for row in part.rows}

    assert names - told == set(), "Run `make bench`, and put its table into docs/performance.md."
    assert {name for name in PARTS if f"### {name}\n" not in PERFORMANCE} == set(), (
        "Say in docs/performance.md how the part is measured and what limits its rows."
    )


def test_the_bare_route_is_the_benchs_alone() -> None:
    assert PATH not in {route.rule for route in all_routes()}
    assert not [path for path in document(asks_who=True)["paths"] if "bench" in path]
