"""kill -9 of a cleanup worker, main process and children, in the middle of every phase."""

import time

import pytest

from app.cleanup.kinds import ORDER
from tests.faults.world import FINALIZE, WORK_S, WORKER_LOST_S, World, seconds_since
from tests.support.figures import Within


@pytest.mark.parametrize("phase", [*(kind.name for kind in ORDER), FINALIZE])
def test_what_a_killed_worker_began_another_one_ends(world: World, phase: str, within: Within) -> None:
    doomed, neighbour = world.fill(), world.fill()
    worker = world.one("worker")
    world.pause(paused=True)
    deletion = world.delete(doomed.name)
    successor = world.fill(doomed.name)

    with world.holding(doomed, phase) as is_waited_for:
        world.pause(paused=False)
        world.wait_until_in_the_middle(deletion, phase, is_waited_for)
        worker.kill()
        killed_at = time.monotonic()
    world.stack.start_worker()
    world.wait_for_state(deletion, "DONE")

    within(f"killed in {phase}: DONE by another worker", seconds_since(killed_at), WORKER_LOST_S + WORK_S)
    assert world.left_of(doomed.id) == []
    assert world.is_untouched(neighbour)
    assert world.is_untouched(successor)
    assert "worker_lost" in world.events(deletion)
    report = world.report(deletion)
    assert (report["deleted"], report["failures"]) == (doomed.rows, [])
