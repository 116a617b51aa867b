"""The table of metrics in docs/deploying.md is what is exported, in the same words."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.config import Settings
from app.health.metrics.counters import BUCKETS
from app.health.metrics.requests import measures
from tests.support import metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploying.md").read_text()


def rows(text: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
    for name, labels, meaning in re.findall(
        r"^\| `(workspaces\w*)` \| (.*?) ?\| (.*) \|$", text, re.MULTILINE
    ):
        yield name, tuple(re.findall(r"`(\w+)`", labels)), meaning


def test_every_metric_is_in_the_table_with_its_labels_and_its_meaning(
    session: Session, settings: Settings
) -> None:
    exported = [(one.name, one.labels, one.text) for one in metrics.exported(session, settings)]

    assert list(rows(PAGE)) == exported, "The table of docs/deploying.md, 'Metrics', has other rows or texts."


def test_every_condition_of_a_deletion_is_explained() -> None:
    from app.health.metrics.deletions import CONDITIONS

    table = PAGE.partition("| `condition` |")[2].partition("\n## ")[0]

    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(CONDITIONS)


@pytest.mark.parametrize("workspace_id", ["workspace", "workspace_id", "workspace_name", "deletion_id"])
def test_no_label_grows_with_the_tenants(session: Session, settings: Settings, workspace_id: str) -> None:
    assert [one.name for one in metrics.exported(session, settings) if workspace_id in one.labels] == []


def test_the_limits_of_the_buckets_are_in_the_page() -> None:
    said = re.search(r"The limits of the buckets are (.+?) for requests, and (.+?)\nfor deletions", PAGE)
    assert said
    unit = {"ms": 0.001, "s": 1, "min": 60, "h": 3600}

    def seconds(text: str) -> list[float]:
        return [float(number) * unit[name] for number, name in re.findall(r"(\d+) (ms|s|min|h)\b", text)]

    assert seconds(said[1]) == pytest.approx(measures().durations._upper_bounds[:-1])
    assert seconds(said[2]) == [float(bound) for bound in BUCKETS[:-1]]
