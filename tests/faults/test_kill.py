"""Cleanup workers that are lost: by kill -9, main process and children, in the middle of every phase; by an error."""

import re
import struct
import time
from pathlib import Path

import pytest

from app.cleanup.kinds import ORDER
from app.cleanup.kinds.base import RowsKind
from tests.faults.world import FINALIZE, WORK_S, WORKER_LOST_S, World, seconds_since
from tests.support.figures import Within

PHASES = [
    # One statement deletes the rows of any kind that is only rows; one of them shows it.
    pytest.param(
        kind.name, marks=[pytest.mark.long] if isinstance(kind, RowsKind) and kind.name != "entities" else []
    )
    for kind in ORDER
]


@pytest.mark.parametrize("phase", [*PHASES, FINALIZE])
def test_what_a_killed_worker_began_another_one_ends(world: World, phase: str, within: Within) -> None:
    doomed, neighbour = world.fill(), world.fill(each=1)
    worker = world.one("worker")
    world.pause(paused=True)
    deletion = world.delete(doomed.name)
    successor = world.fill(doomed.name, each=1)

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


def results_of_its_pool(pid: int) -> list[Path]:
    """The pipes from which a worker reads what the processes of its pool have done."""
    process = Path(f"/proc/{pid}")
    files = {path: str(path.readlink()) for path in (process / "fd").iterdir()}
    watched = {
        number
        for path, file in files.items()
        if file == "anon_inode:[eventpoll]"
        for number in re.findall(r"^tfd: +(\d+)", (process / "fdinfo" / path.name).read_text(), re.MULTILINE)
    }
    # It keeps both ends of these, and of no others that it waits for.
    kept = {file for path, file in files.items() if file.startswith("pipe:") and path.lstat().st_mode & 0o200}
    return [path for path, file in files.items() if path.name in watched and file in kept]


def test_a_worker_that_is_told_half_a_result_ends_instead_of_waiting_for_the_rest(world: World) -> None:
    """As when a time limit interrupts the process of a task that writes its result."""
    doomed, worker = world.fill(), world.one("worker")
    world.pause(paused=True)
    deletion = world.delete(doomed.name)
    unreadable, half = struct.pack("!i", 4) + bytes(4), struct.pack("!i", 1000) + b"x"

    with world.holding(doomed, "entities") as is_waited_for:
        world.pause(paused=False)
        world.wait_until_in_the_middle(deletion, "entities", is_waited_for)
        pipes = results_of_its_pool(worker.process.pid)
        assert len(pipes) == 2
        for pipe in pipes:
            with pipe.open("wb", buffering=0) as results:
                results.write(unreadable + half)
        world.stack.wait_until(lambda: not worker.is_alive, "the worker ends")
    world.stack.start_worker()
    world.wait_for_state(deletion, "DONE")

    assert "Unrecoverable error" in worker.log
    assert world.left_of(doomed.id) == []
