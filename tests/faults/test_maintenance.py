"""Maintenance beside deletions that take all workers, on hosts whose clocks are apart."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.clock import seconds_since
from app.models import Deletion, MaintenanceStep
from app.models.maintenance import Step
from tests.faults.world import QUICK, World
from tests.support.clocks import Clock
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Tell
from tests.support.stack import CHECKOUT, Stack

SUPPORT = CHECKOUT / "tests" / "support"
CLOCKS = {"web": 90, "worker": -60, "maintenance": 60, "runtime": 0, "beat": 31}
"""How many seconds ahead each host's clock is; a runner's lease lasts four, a worker's five."""
SETTINGS: dict[str, Any] = {
    **QUICK,
    "visibility_timeout_seconds": 600,
    "runtime_lease_seconds": 4,
    "runtime_poll_seconds": 0.2,
    "stop_grace_seconds": 1,
    "runtime_host": "here",
}
DELETIONS, FILESETS = 8, 6
SLOW_S = 0.1
"""Of each operation on a store; a fileset takes several."""
ROUNDS = 5

pytestmark = [pytest.mark.needs("cc", package="gcc"), pytest.mark.long]
"""Programs whose clocks are set are not forked: each loads its packages. What is short of it sets the clock of one."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("maintenance")
    with Stack(
        directory,
        parts=(),
        plug_ins=[SUPPORT / "faulty_store"],
        storage_url=f"faulty://{directory / 'data' / 'blobs'}",
        **SETTINGS,
    ) as stack:
        stack.blob_root.mkdir(exist_ok=True)
        parts = []
        for name, offset_s in CLOCKS.items():
            clock = Clock(directory / "clocks" / name)
            clock.move(offset_s)
            parts.append(stack.start(name, wait=False, **clock.environment))
        for part in parts:
            stack.wait_until_ready(part)
        yield stack


@pytest.fixture
def world(stack: Stack) -> Iterator[World]:
    world = World(stack)
    yield world
    world.engine.dispose()


def last_successes(world: World) -> dict[str, tuple[datetime, float]]:
    """When each step last succeeded, and how many seconds ago by the database's clock."""
    ago = seconds_since(MaintenanceStep.last_success_at)
    with Session(world.engine) as session:
        rows = session.execute(select(MaintenanceStep.name, MaintenanceStep.last_success_at, ago))
        return {name: (at, seconds) for name, at, seconds in rows}


class Watch:
    """Notes how often each step succeeds, and how long it is silent."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: dict[str, set[datetime]] = {step.value: set() for step in Step}
        self.silence_s = dict.fromkeys(self.seen, 0.0)

    def look(self) -> None:
        for name, (at, seconds) in last_successes(self._world).items():
            self.seen[name].add(at)
            self.silence_s[name] = max(self.silence_s[name], seconds)


def test_slow_deletions_silence_no_step(world: World, tell: Tell) -> None:
    tenants = [world.fill(f"slow-{number}", each=FILESETS) for number in range(DELETIONS)]
    world.stack.wait_until(lambda: len(last_successes(world)) == len(Step), "a sweep")
    faults = {str(tenant.id): f"slow:{SLOW_S}" for tenant in tenants}
    (world.stack.blob_root / "faults.json").write_text(json.dumps(faults))
    deletions = [world.delete(tenant.name) for tenant in tenants]
    watch, started = Watch(world), time.monotonic()

    # While no deletion has ended, there are always more slices than workers.
    while (states := {world.report(deletion)["state"] for deletion in deletions}) == {"DELETING"}:
        watch.look()
        assert time.monotonic() < started + DEADLINE_S, world.stack.tails()
    assert states == {"DELETING", "DONE"}

    for name, silence_s in watch.silence_s.items():
        tell(f"{DELETIONS} slow deletions on 2 workers: longest silence of {name}: {silence_s:.1f} s")
    (world.stack.blob_root / "faults.json").unlink()
    for deletion in deletions:
        world.wait_for_state(deletion, "DONE")
    assert min(len(times) for times in watch.seen.values()) >= ROUNDS, watch.seen


def test_clocks_that_are_apart_harm_nothing(world: World, tell: Tell) -> None:
    world.fill("lab", each=0)
    doomed = world.fill("doomed")
    client, models = world.stack.client, "/apis/models/v2/workspaces/lab"
    step = {"name": "main", "executor": {"provider": "subprocess", "command": ["sleep", "3600"]}}
    jobs = "/apis/jobs/v2/workspaces/lab/jobs"
    spec = {"name": "train", "source": "tests", "spec": {}, "platform_spec": {"steps": [step]}}
    assert client.post(jobs, json=spec).status_code == 201
    command = ["python3", "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
    executor = {"gpu": 0, "health_check_path": "/", "override_config": {"command": command}}
    config = {"name": "web", "engine": "generic", "model_spec": {}, "executor_config": executor}
    assert client.post(f"{models}/deployment-configs", json=config).status_code == 201
    assert client.post(f"{models}/deployments", json={"name": "chat", "config": "web"}).status_code == 201

    def states() -> tuple[str, str]:
        job, deployment = client.get(f"{jobs}/train").json(), client.get(f"{models}/deployments/chat").json()
        return job["status"], deployment["status"]

    world.stack.wait_until(lambda: states() == ("active", "READY"), "the job and the deployment run")
    deletion = world.delete(doomed.name)
    world.wait_for_state(deletion, "DONE")
    watch = Watch(world)

    def look() -> bool:
        watch.look()
        assert states() == ("active", "READY")
        return min(len(times) for times in watch.seen.values()) > 3 * SETTINGS["runtime_lease_seconds"]

    world.stack.wait_until(look, "sweeps for three leases")

    with Session(world.engine) as session:
        row = session.get_one(Deletion, deletion)
        assert row.started_at is not None
        waited_s = (row.started_at - row.requested_at).total_seconds()
    tell(f"clocks apart: a deletion began {waited_s:.1f} s after the request, by the database's clock")
    assert waited_s < CLOCKS["web"]
    assert "worker_lost" not in world.events(deletion)
    assert client.delete("/apis/entities/v2/workspaces/lab").status_code == 200
