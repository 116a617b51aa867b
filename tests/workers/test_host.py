"""The end of a runtime worker: at once, or when its jobs have ended."""

from threading import Event

import pytest

from app.config import Settings
from tests.support.deadlines import DEADLINE_S
from workers import host


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("draining", Event()), ("stopping", Event()), ("running_jobs", host.Running())):
        monkeypatch.setattr(host, name, value)


def stop(monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    monkeypatch.setattr(host, "load_settings", lambda: Settings(**settings))
    host._stop_supervisors()
    assert host.draining.is_set()


def test_a_worker_that_ends_what_it_runs_does_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with host.running_jobs:
        stop(monkeypatch, runtime_on_stop="end")

        assert host.stopping.is_set()


def test_a_worker_that_drains_ends_the_rest_when_its_last_job_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with host.running_jobs:
        with host.running_jobs:
            stop(monkeypatch, runtime_on_stop="drain")
        assert not host.stopping.wait(0.1), "one job runs still"

    assert host.stopping.wait(DEADLINE_S)


def test_a_worker_that_drains_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with host.running_jobs:
        stop(monkeypatch, runtime_on_stop="drain", runtime_drain_seconds=0.1)

        assert host.stopping.wait(DEADLINE_S)
