"""What is in `ops/`: rules and a dashboard that Prometheus understands, about metrics that there are."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.orm import Session

from app.config import Settings
from tests.docs.test_links import anchors
from tests.support import metrics

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
RUNBOOK = ROOT / "docs" / "cleanup.md"
TRIED = Path(__file__).with_name("alerts.test.yml")
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((OPS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((OPS / "dashboard.json").read_text())
needs_promtool = pytest.mark.needs("promtool", package="prometheus")


def charts() -> Iterator[tuple[str, str]]:
    """The title and the expression of each line of the dashboard."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def promtool(*arguments: str | Path) -> None:
    run = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bworkspaces(?:_\w+)?\b", expression))


@pytest.fixture
def samples(database: object, session: Session, settings: Settings) -> dict[str, metrics.Exported]:
    """Every name that an expression may use."""
    return {name: one for one in metrics.exported(session, settings) for name in one.samples}


def test_every_alert_names_metrics_that_are_exported(samples: dict[str, metrics.Exported]) -> None:
    unknown = {one["alert"]: names_in(one["expr"]) - samples.keys() for one in ALERTS}

    assert {alert: names for alert, names in unknown.items() if names} == {}
    assert all(names_in(one["expr"]) for one in ALERTS)


def test_every_chart_names_metrics_that_are_exported(samples: dict[str, metrics.Exported]) -> None:
    unknown = {title: names_in(expression) - samples.keys() for title, expression in charts()}

    assert {title: names for title, names in unknown.items() if names} == {}
    assert all(names_in(expression) for _, expression in charts())


def test_the_dashboard_shows_every_metric(samples: dict[str, metrics.Exported]) -> None:
    shown = {samples[name].name for _, expression in charts() for name in names_in(expression)}

    assert {one.name for one in samples.values()} - shown == set(), "Add a panel to ops/dashboard.json."


def test_labels_of_expressions_are_those_of_their_metrics(samples: dict[str, metrics.Exported]) -> None:
    """In `by (…)` and `{…}`; `le` and `instance` are Prometheus' own."""
    wrong = []
    for expression in [*(one["expr"] for one in ALERTS), *(expression for _, expression in charts())]:
        known = {label for name in names_in(expression) for label in samples[name].labels}
        listed = re.findall(r"by \(([\w, ]+)\)", expression)
        used = {label for labels in listed for label in labels.split(", ")}
        used |= set(re.findall(r"[{,](\w+)=~?\"", expression))
        wrong += [(expression, label) for label in used - known - {"le", "instance"}]

    assert wrong == []


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_leads_to_its_heading_in_the_runbook(alert: dict[str, Any]) -> None:
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")

    assert ROOT / page == RUNBOOK
    assert anchor == alert["alert"].lower()
    assert anchor in anchors(RUNBOOK.read_text()), f"docs/cleanup.md has no heading {alert['alert']}"
    assert alert["annotations"]["summary"].endswith(".")
    assert alert["labels"]["severity"] in {"critical", "warning"}


def test_every_heading_of_an_alert_is_that_of_one() -> None:
    told = re.findall(r"^### (Workspaces\w+)$", RUNBOOK.read_text(), re.MULTILINE)

    assert sorted(told) == sorted(one["alert"] for one in ALERTS)


def test_every_alert_is_tried_both_ways() -> None:
    tried = [rule for test in yaml.safe_load(TRIED.read_text())["tests"] for rule in test["alert_rule_test"]]
    fires = {one["alertname"] for one in tried if one.get("exp_alerts")}
    rests = {one["alertname"] for one in tried if not one.get("exp_alerts")}

    assert fires == rests == {one["alert"] for one in ALERTS}


@needs_promtool
def test_the_alerts_fire_when_they_have_to_and_else_not() -> None:
    promtool("test", "rules", TRIED)


@needs_promtool
def test_prometheus_understands_the_rules_and_the_configuration() -> None:
    promtool("check", "rules", OPS / "alerts.yml")
    promtool("check", "config", OPS / "prometheus.yml")


@needs_promtool
def test_prometheus_understands_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"chart:{number}", "expr": expression} for number, (_, expression) in enumerate(charts())
    ]
    written = tmp_path / "charts.yml"
    written.write_text(yaml.safe_dump({"groups": [{"name": "charts", "rules": rules}]}))

    promtool("check", "rules", written)
