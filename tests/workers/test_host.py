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


def test_a_worker_offers_its_slots_unless_it_is_stopped_or_supervises_as_much_as_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "load_settings", lambda: Settings(runtime_job_slots=5))
    monkeypatch.setattr(host, "supervised", host.Running())
    host.supervised.limit = 2
    with host.supervised:
        assert host.job_slots() == 5
        with host.supervised:
            assert host.job_slots() == 0, "a message for one more would be declined"
            assert not host.supervised.are_many.is_set(), "both may go on"
            with host.supervised:
                assert host.supervised.are_many.is_set()
        assert not host.supervised.are_many.is_set()
        assert host.job_slots() == 5
    host.draining.set()
    assert host.job_slots() == 0
