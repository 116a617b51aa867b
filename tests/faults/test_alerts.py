"""Prometheus scrapes the product with our own rules: what is broken has its alert, and nothing else has one."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from devstack.processes import HOST, Command, free_port
from tests.faults.test_status import not_ready, unmounted, without, without_broker
from tests.faults.world import World
from tests.support.deadlines import DEADLINE_S
from tests.support.stack import CHECKOUT

pytestmark = pytest.mark.needs("prometheus", package="prometheus")

Alert = tuple[str, str]
"""Its name, and what it is about."""

STALE = ("WorkspacesOrphanScanStale", "")
"""The first scan of a new installation comes within an hour."""


@contextmanager
def paused(world: World) -> Iterator[None]:
    world.pause(paused=True)
    yield
    world.pause(paused=False)


FAULTS: dict[str, tuple[Alert, Callable[[World], AbstractContextManager[None]]]] = {
    "broker down": (("WorkspacesNotReady", "broker"), without_broker),
    "store absent": (("WorkspacesNotReady", "store"), unmounted),
    "no cleanup worker": (("WorkspacesNotReady", "cleanup"), without("worker")),
    "paused": (("WorkspacesPaused", ""), paused),
    "no API": (("WorkspacesMetricsAbsent", ""), without("web")),
}


SHORT = "paused"
"""The one that `make test` tries; `make long` tries all others."""


class Prometheus:
    """A server that scrapes the product every few seconds, with the rules of `ops/`, but for how long they wait."""

    def __init__(self, world: World, directory: Path) -> None:
        rules = (CHECKOUT / "ops" / "alerts.yml").read_text()
        (directory / "alerts.yml").write_text(re.sub(r"for: \w+", "for: 1s", rules))
        target = {"targets": [urlsplit(world.stack.api_url).netloc]}
        config = {
            "global": {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "workspaces", "static_configs": [target]}],
        }
        (directory / "prometheus.yml").write_text(json.dumps(config))  # which is YAML, too
        address = f"{HOST}:{free_port()}"
        self.url = f"http://{address}"
        options = {
            "config.file": directory / "prometheus.yml",
            "storage.tsdb.path": directory / "data",
            "web.listen-address": address,
        }
        command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        self.process = Command(command).spawn(subprocess.DEVNULL)

    def firing(self) -> set[Alert] | None:
        """The alerts that fire now; None before the server answers."""
        try:
            answer = httpx.get(f"{self.url}/api/v1/alerts", timeout=DEADLINE_S)
        except httpx.TransportError:
            return None
        if not answer.is_success:  # it reads what it has stored
            return None
        return {
            (one["labels"]["alertname"], one["labels"].get("dependency", ""))
            for one in answer.json()["data"]["alerts"]
            if one["state"] == "firing"
        }


@pytest.fixture
def prometheus(world: World, tmp_path: Path) -> Iterator[Prometheus]:
    server = Prometheus(world, tmp_path)
    yield server
    server.process.kill()
    server.process.wait()


@pytest.mark.parametrize(
    "fault", [one if one == SHORT else pytest.param(one, marks=pytest.mark.long) for one in FAULTS]
)
def test_what_is_broken_has_its_alert_and_what_works_has_none(
    world: World, prometheus: Prometheus, fault: str
) -> None:
    alert, broken = FAULTS[fault]
    wait = world.stack.wait_until
    wait(lambda: not not_ready(world), "everything is ready")
    wait(lambda: prometheus.firing() == {STALE}, "Prometheus has scraped a product that is well")

    with broken(world):
        wait(lambda: (prometheus.firing() or set()) - {STALE} == {alert}, f"{alert} fires, and no other")

    world.heal()
    wait(lambda: prometheus.firing() == {STALE}, f"{alert} has ended")
