"""PostgreSQL restarted, in order and by kill -9, in the middle of a deletion."""

import time
from collections.abc import Callable

import pytest

from tests.faults.world import WORK_S, WORKER_LOST_S, World, seconds_since
from tests.support.figures import Within


@pytest.mark.parametrize("phase", ["filesets", "entities"])
@pytest.mark.parametrize(
    "end", [lambda server: server.stop(), lambda server: server.kill()], ids=["stop", "kill"]
)
def test_a_restart_of_postgres_delays_a_deletion_and_nothing_else(
    world: World, phase: str, end: Callable[[object], None], within: Within
) -> None:
    doomed, neighbour = world.fill(), world.fill()
    world.pause(paused=True)
    deletion = world.delete(doomed.name)
    successor = world.fill(doomed.name)

    with world.holding(doomed, phase) as is_waited_for:
        world.pause(paused=False)
        world.wait_until_in_the_middle(deletion, phase, is_waited_for)
        end(world.stack.postgres)
    world.stack.postgres.start()
    back_at = time.monotonic()
    world.stack.wait_until(lambda: world.stack.client.get("/health/ready").is_success, "the API serves again")
    world.wait_for_state(deletion, "DONE")

    within(
        f"PostgreSQL away in {phase}: DONE after its return", seconds_since(back_at), WORKER_LOST_S + WORK_S
    )
    assert world.left_of(doomed.id) == []
    assert world.is_untouched(neighbour)
    assert world.is_untouched(successor)
