"""The scheduler: it makes good every lost message, and a second one does no harm."""

import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.cleanup.kinds import ORDER
from app.models import CleanupControl
from tests.faults.world import MESSAGE_LOST_S, WORK_S, World, seconds_since
from tests.support.clocks import Clock
from tests.support.figures import Within

HOUR_S = 3600
SWEEPS = 3


def test_a_message_that_was_lost_is_made_good_by_the_sweep(world: World, within: Within) -> None:
    unnotified, notified = world.fill(), world.fill()
    world.one("beat").stop()
    world.stack.valkey.stop()
    deletion = world.delete(unnotified.name)
    world.stack.wait_until(
        lambda: any(
            "message.lost" in line and deletion in line for line in world.stack.log("web").splitlines()
        ),
        "the message is lost",
    )
    world.stack.valkey.start()
    # Nobody but the sweep knows of the first one: a later deletion passes it by.
    world.wait_for_state(world.delete(notified.name), "DONE")
    assert world.report(deletion)["started_at"] is None

    world.stack.start("beat")
    beat_at = time.monotonic()
    world.wait_for_state(deletion, "DONE")

    within("message lost: DONE after beat's return", seconds_since(beat_at), MESSAGE_LOST_S + WORK_S)
    assert world.left_of(unnotified.id) == []


def test_two_beats_are_harmless(world: World, tmp_path: Path, within: Within) -> None:
    doomed, neighbour = [world.fill() for _ in range(3)], world.fill(each=1)
    # With a schedule of its own, as on another host; its rounds are in its log only at DEBUG.
    second = world.stack.start("beat", WORKSPACES_DATA_DIR=str(tmp_path), WORKSPACES_LOG_LEVEL="DEBUG")
    world.stack.wait_until(lambda: "Sending due task sweep" in second.log, "the second one ticks, too")
    started = time.monotonic()

    deletions = [world.delete(tenant.name) for tenant in doomed]
    for deletion in deletions:
        world.wait_for_state(deletion, "DONE")

    within("two beats: 3 deletions DONE", seconds_since(started), MESSAGE_LOST_S + WORK_S)
    second.stop()
    phases = len(ORDER)
    for deletion, tenant in zip(deletions, doomed, strict=True):
        assert Counter(world.events(deletion)) == {
            "requested": 1,
            "started": 1,
            "phase_started": phases,
            "phase_finished": phases,
            "finished": 1,
        }
        assert world.report(deletion)["deleted"] == tenant.rows
        assert world.left_of(tenant.id) == []
    assert world.is_untouched(neighbour)


@pytest.mark.needs("cc", package="gcc")
def test_sweeps_go_on_when_the_clock_of_beat_is_set_back(world: World, tmp_path: Path) -> None:
    world.one("beat").stop()
    clock = Clock(tmp_path / "clock")
    clock.move(HOUR_S)
    beat = world.stack.start("beat", **clock.environment)
    try:
        wait_for_sweeps(world, "sweeps with a clock that is ahead")
        clock.move(-HOUR_S)
        wait_for_sweeps(world, "sweeps after it was set back")
    finally:
        beat.stop()


def wait_for_sweeps(world: World, what: str) -> None:
    seen: set[datetime | None] = set()

    def has_swept() -> bool:
        with Session(world.engine) as session:
            seen.add(session.get_one(CleanupControl, 1).last_sweep_at)
        return len(seen) > SWEEPS

    world.stack.wait_until(has_swept, what)
