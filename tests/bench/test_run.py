"""`make bench` on a small scale: the real processes, and a figure in every row."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.parts import PARTS
from tests.support.deadlines import DEADLINE_S

ROOT = Path(__file__).parents[2]


def bench(output: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    """A run of some parts."""
    command = [sys.executable, "-m", "bench", "--scale", "tiny", "--only", ",".join(parts)]
    return subprocess.run(
        [*command, "--output", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=6 * DEADLINE_S,
        check=False,
    )


@pytest.mark.long
def test_every_row_is_measured(tmp_path: Path) -> None:
    ended = bench(tmp_path, *reversed(PARTS))  # not in the order in which they can be measured

    made = json.loads((tmp_path / "results.json").read_text())
    assert [(row["name"], row["missing"]) for row in made["rows"] if row["missing"]] == [], ended.stderr
    assert sorted(row["name"] for row in made["rows"]) == sorted(
        row.name for part in PARTS.values() for row in part.rows
    )
    assert all(row["ratio"] > 0 for row in made["rows"])
    assert ended.stdout == (tmp_path / "results.md").read_text()
    assert ended.returncode == 0


def test_a_part_that_is_unknown_is_refused_by_name(tmp_path: Path) -> None:
    ended = bench(tmp_path, "requests", "everything")

    assert ended.returncode == 2
    assert "no part everything; there are starting," in ended.stderr
