"""PostgreSQL restarted, in order and by kill -9, in the middle of a deletion; and frozen."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.clock import seconds_since as seconds_ago
from app.models import Deployment, Job, MaintenanceStep
from app.models.maintenance import Step
from devstack.servers import EmbeddedPostgres
from tests.faults.world import QUICK, WORK_S, WORKER_LOST_S, World, seconds_since
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Within
from tests.support.processes import NewWord, living, stubborn_server

REQUESTS = 20  # more than twice as many as the web process has threads
STATEMENT_S, CONNECT_S = 7.0, 3.0
"""The longest that a statement and a new connection wait for a database that never answers."""


@pytest.mark.parametrize(
    ("end", "phase"),
    [
        pytest.param(EmbeddedPostgres.stop, "filesets", id="stop-filesets"),
        pytest.param(EmbeddedPostgres.kill, "entities", id="kill-entities"),
        pytest.param(EmbeddedPostgres.stop, "entities", id="stop-entities", marks=pytest.mark.long),
        pytest.param(EmbeddedPostgres.kill, "filesets", id="kill-filesets", marks=pytest.mark.long),
    ],
)
def test_a_restart_of_postgres_delays_a_deletion_and_nothing_else(
    world: World, phase: str, end: Callable[[object], None], within: Within
) -> None:
    doomed, neighbour = world.fill(), world.fill(each=1)
    world.pause(paused=True)
    deletion = world.delete(doomed.name)
    successor = world.fill(doomed.name, each=1)

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


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Stop all processes of the server for the block: the kernel accepts connections and bytes, nobody answers."""
    postmaster = int((server.home.cluster / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGSTOP)
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    stopped = [*map(int, children), postmaster]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def test_a_frozen_postgres_leaves_no_request_without_an_answer(world: World, within: Within) -> None:
    url, doomed = world.stack.api_url, world.fill()
    world.pause(paused=True)
    deletion = world.delete(doomed.name)
    longest_live_s, began = 0.0, time.monotonic()

    with frozen(world.stack.postgres), ThreadPoolExecutor(REQUESTS) as clients:
        listed = f"{url}/apis/entities/v2/workspaces"
        asked = [clients.submit(httpx.get, listed, timeout=DEADLINE_S) for _ in range(REQUESTS)]
        while wait(asked, timeout=0.1).not_done:
            live = httpx.get(f"{url}/health/live", timeout=DEADLINE_S)
            assert live.json() == {"status": "live"}
            longest_live_s = max(longest_live_s, live.elapsed.total_seconds())
        answered_s = seconds_since(began)
        assert {each.result().status_code for each in asked} == {503}
    thawed_at = time.monotonic()
    world.stack.wait_until(lambda: world.stack.client.get("/health/ready").is_success, "the API serves again")
    recovered_s = seconds_since(thawed_at)
    world.pause(paused=False)
    world.wait_for_state(deletion, "DONE")

    within("PostgreSQL frozen: /health/live", longest_live_s, 1.0)
    within(f"PostgreSQL frozen: {REQUESTS} requests for 8 threads", answered_s, STATEMENT_S + 3 * CONNECT_S)
    within("PostgreSQL frozen: served again", recovered_s, STATEMENT_S + CONNECT_S)
    assert world.left_of(doomed.id) == []


def running(world: World, workspace: str) -> tuple[str, str, list[tuple[int, str | None]]]:
    """The statuses of the job and the deployment of a workspace, and the fencing tokens of both, with their hosts."""
    client = world.stack.client
    job = client.get(f"/apis/jobs/v2/workspaces/{workspace}/jobs/train").json()
    deployment = client.get(f"/apis/models/v2/workspaces/{workspace}/deployments/chat").json()
    with Session(world.engine) as session:
        rows = [
            session.execute(select(model.fence, model.host).where(model.id == UUID(one["id"]))).one()
            for model, one in ((Job, job), (Deployment, deployment))
        ]
    return job["status"], deployment["status"], [(fence, host) for fence, host in rows]


def test_what_runs_outlives_an_outage_that_is_longer_than_its_lease(world: World, new_word: NewWord) -> None:
    client, word = world.stack.client, new_word()
    workspace = world.fill(each=0).name
    script = f"sleep {word} & echo ready; while [ ! -e go ]; do sleep 0.1; done; kill $!; echo went"
    step = {"name": "main", "executor": {"provider": "subprocess", "command": ["sh", "-c", script]}}
    body = {"name": "train", "source": "tests", "spec": {}, "platform_spec": {"steps": [step]}}
    job = client.post(f"/apis/jobs/v2/workspaces/{workspace}/jobs", json=body)
    assert job.status_code == 201, job.text
    models = f"/apis/models/v2/workspaces/{workspace}"
    executor = {
        "gpu": 0,
        "health_check_path": "/",
        "override_config": {"command": stubborn_server(word)},
    }
    config = {"name": "server", "engine": "generic", "model_spec": {}, "executor_config": executor}
    assert client.post(f"{models}/deployment-configs", json=config).status_code == 201
    assert client.post(f"{models}/deployments", json={"name": "chat", "config": "server"}).status_code == 201
    world.stack.wait_until(lambda: running(world, workspace)[:2] == ("active", "READY"), "both run")
    before, processes = running(world, workspace), sorted(living(word))
    longer_s = 2 * (QUICK["runtime_lease_seconds"] + QUICK["deployment_start_seconds"])

    world.stack.postgres.stop()
    away_at = time.monotonic()
    world.stack.wait_until(lambda: time.monotonic() > away_at + longer_s, "two leases and starts")
    assert sorted(living(word)) == processes
    world.stack.postgres.start()
    world.stack.wait_until(lambda: client.get("/health/ready").is_success, "the API serves again")
    marking = select(func.min(seconds_ago(MaintenanceStep.unbroken_since))).where(
        MaintenanceStep.name.in_([Step.MARK_LOST_JOBS, Step.MARK_LOST_DEPLOYMENTS])
    )

    def has_swept_for_two_leases() -> bool:
        with Session(world.engine) as session:
            swept_s = session.scalar(marking)
        return swept_s is not None and swept_s > 2 * QUICK["runtime_lease_seconds"]

    world.stack.wait_until(has_swept_for_two_leases, "sweeps that could have marked them as lost")

    assert running(world, workspace) == before
    assert sorted(living(word)) == processes
    [directory] = world.stack.directories_of(job.json()["id"])
    (directory / "go").touch()
    world.stack.wait_until(lambda: running(world, workspace)[0] == "completed", "the job completes")
