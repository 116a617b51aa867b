"""What `/status` says first while one part of the product after the other is broken."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest

from tests.faults.test_postgres import frozen
from tests.faults.world import World
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Tell, Within

ANSWER_S = 5.0
"""Within which `/status` and `/metrics` answer on an idle machine, whatever hangs."""

first_lines: dict[str, str] = {}
"""What the tests below have read, by fault."""


@contextmanager
def refusing(world: World) -> Iterator[None]:
    world.stack.postgres.stop()
    try:
        yield
    finally:
        world.stack.postgres.start()


@contextmanager
def without_broker(world: World) -> Iterator[None]:
    world.stack.valkey.stop()
    try:
        yield
    finally:
        world.stack.valkey.start()


def without(name: str) -> Callable[[World], AbstractContextManager[None]]:
    @contextmanager
    def broken(world: World) -> Iterator[None]:
        for part in world.stack.running(name):
            part.kill()
        yield  # a heal of the world starts it again, too
        world.one(name)

    return broken


@contextmanager
def unmounted(world: World) -> Iterator[None]:
    away = world.stack.blob_root.rename(world.stack.blob_root.with_name("unmounted"))
    try:
        yield
    finally:
        away.rename(world.stack.blob_root)


FAULTS: dict[str, tuple[str, Callable[[World], AbstractContextManager[None]]]] = {
    "database refuses": ("database", refusing),
    "database frozen": ("database", lambda world: frozen(world.stack.postgres)),
    "broker down": ("broker", without_broker),
    "beat stopped": ("beat", without("beat")),
    "no maintenance worker": ("maintenance", without("maintenance")),
    "no cleanup worker": ("cleanup", without("worker")),
    "runtime host silent": ("runtime", without("runtime")),
    "store absent": ("store", unmounted),
}


def not_ready(world: World) -> list[dict[str, str]]:
    answer = httpx.get(f"{world.stack.api_url}/status", timeout=DEADLINE_S)
    found: list[dict[str, str]] = answer.json()["services"]["not_ready"]
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_the_first_line_of_the_status_names_what_is_broken(
    world: World, tell: Tell, within: Within, fault: str
) -> None:
    name, broken = FAULTS[fault]
    world.stack.wait_until(lambda: not not_ready(world), "everything is ready")

    with broken(world):
        world.stack.wait_until(lambda: [one["name"] for one in not_ready(world)][:1] == [name], fault)
        status = httpx.get(f"{world.stack.api_url}/status", timeout=DEADLINE_S)
        metrics = httpx.get(f"{world.stack.api_url}/metrics", timeout=DEADLINE_S)
        ready = httpx.get(f"{world.stack.api_url}/health/ready", timeout=DEADLINE_S)

    first = status.json()["services"]["not_ready"][0]
    tell(f"/status, {fault}: {status.json()['status']}: {first['name']} {first['message']}")
    within(f"/status, {fault}", status.elapsed.total_seconds(), ANSWER_S)
    within(f"/metrics, {fault}", metrics.elapsed.total_seconds(), ANSWER_S)
    assert ready.status_code == (503 if name == "database" else 200)
    assert metrics.status_code == 200
    assert f'workspaces_up{{dependency="{name}"}} 0.0' in metrics.text
    assert first["message"] not in first_lines.values()
    first_lines[fault] = first["message"]
