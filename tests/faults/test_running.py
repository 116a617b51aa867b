"""A workspace is deleted while everything in it runs: what the process table, the ports and the disk say afterwards.

The peer leaves jobs and servers running, and files of uploads that were under way (its weaknesses W3, W10, W11, W14).
"""

import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.runtime.process import MARK
from tests.runtime.runs import STUBBORN
from tests.support.stack import Stack

JOBS, DEPLOYMENTS, UPLOADS = 20, 5, 4
SETTINGS: dict[str, Any] = {
    "runtime_lease_seconds": 4,
    "runtime_poll_seconds": 0.2,
    "stop_grace_seconds": 1,
    "sweep_seconds": 1,
    "ring_again_seconds": 1,
    "waiting_poll_min_seconds": 0.2,
    "waiting_poll_max_seconds": 1,
    "database_pool_size": 10,
    "runtime_host": "here",
}
W = "/apis/entities/v2/workspaces"
logging.getLogger("httpx").setLevel(logging.WARNING)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    environment = {"RUNTIME_CONCURRENCY": "40", "WEB_CONCURRENCY": "2"}
    with Stack(tmp_path_factory.mktemp("running"), environment=environment, **SETTINGS) as stack:
        yield stack


def of(ids: list[str]) -> list[psutil.Process]:
    """Every process on this machine that one of these jobs or deployments has started, however indirectly."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) in ids and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def submit(stack: Stack, workspace: str, number: int) -> str:
    """A job; every other one ignores SIGTERM and has grandchildren that do so too."""
    script = f"{STUBBORN} while :; do sleep 0.2; done" if number % 2 else "echo ready; sleep 1000"
    step = {"name": "main", "executor": {"provider": "subprocess", "command": ["sh", "-c", script]}}
    answer = stack.client.post(
        f"/apis/jobs/v2/workspaces/{workspace}/jobs",
        json={"name": f"job-{number}", "source": "tests", "spec": {}, "platform_spec": {"steps": [step]}},
    )
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def deploy(stack: Stack, workspace: str, number: int) -> str:
    base = f"/apis/models/v2/workspaces/{workspace}"
    if number == 0:
        command = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
        executor = {"gpu": 0, "health_check_path": "/", "override_config": {"command": command}}
        config = {"name": "server", "engine": "generic", "model_spec": {}, "executor_config": executor}
        assert stack.client.post(f"{base}/deployment-configs", json=config).status_code == 201
    answer = stack.client.post(f"{base}/deployments", json={"name": f"server-{number}", "config": "server"})
    assert answer.status_code == 201, answer.text
    deployment_id: str = answer.json()["id"]
    return deployment_id


def statuses(stack: Stack, path: str) -> list[str]:
    page = stack.client.get(path, params={"page_size": 100}).json()
    return [one["status"] for one in page["data"]]


def ports(stack: Stack, workspace: str) -> list[int]:
    page = stack.client.get(f"/apis/models/v2/workspaces/{workspace}/deployments").json()
    return [int(one["status_message"].rpartition(":")[2]) for one in page["data"]]


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Uploads:
    """Clients that send without end, until the server has enough of them."""

    def __init__(self, stack: Stack, workspace: str) -> None:
        self.base = f"{stack.api_url}/apis/files/v2/workspaces/{workspace}/filesets"
        assert httpx.post(self.base, json={"name": "data"}).status_code == 200
        self.is_over = threading.Event()
        self.answers: list[int] = []
        self.started = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self._send, args=[i]) for i in range(UPLOADS)]
        for thread in self.threads:
            thread.start()
        for _ in self.threads:
            assert self.started.acquire(timeout=20)

    def _send(self, number: int) -> None:
        def content() -> Iterator[bytes]:
            yield b"x" * 1_000_000
            self.started.release()
            while not self.is_over.wait(0.05):
                yield b"x" * 10_000

        try:
            answer = httpx.put(f"{self.base}/data/-/late-{number}", content=content(), timeout=60)
            self.answers.append(answer.status_code)
        except httpx.TransportError:
            self.answers.append(0)

    def end(self) -> list[int]:
        self.is_over.set()
        for thread in self.threads:
            thread.join(60)
        return self.answers


def files_below(directory: Path, workspace_id: str) -> list[str]:
    return [str(path) for path in directory.rglob("*") if workspace_id in str(path) and path.is_file()]


def test_a_workspace_goes_with_everything_that_runs_in_it(stack: Stack) -> None:
    workspace = stack.client.post(W, json={"name": "busy"}).json()
    stack.client.post(W, json={"name": "neighbour"})
    neighbour = submit(stack, "neighbour", 0)
    ids = [deploy(stack, "busy", number) for number in range(DEPLOYMENTS)]
    ids += [submit(stack, "busy", number) for number in range(JOBS)]
    jobs, deployments = "/apis/jobs/v2/workspaces/busy/jobs", "/apis/models/v2/workspaces/busy/deployments"
    stack.wait_until(lambda: statuses(stack, jobs) == ["active"] * JOBS, "all jobs run", timeout_s=90)
    stack.wait_until(
        lambda: statuses(stack, deployments) == ["READY"] * DEPLOYMENTS, "all servers serve", timeout_s=90
    )
    bound = ports(stack, "busy")
    assert all(is_listening(port) for port in bound)
    assert len(of(ids)) >= 2 * (JOBS + DEPLOYMENTS)  # at least its keeper and itself of each
    uploads = Uploads(stack, "busy")

    deletion = stack.client.delete(f"{W}/busy").json()["deletion_id"]

    address = f"/apis/entities/v2/deletions/{deletion}"
    answers: list[int] = []

    def is_done() -> bool:
        report = stack.client.get(address).json()
        assert report["state"] in {"DELETING", "DONE"}, report
        if report["phase"] == "filesets" and not answers:
            answers.extend(uploads.end())  # the server has to notice at the latest when they want to publish
        return report["state"] == "DONE"

    took_s = stack.wait_until(is_done, "the deletion is DONE", timeout_s=120)
    answers.extend(uploads.end() if not answers else [])

    assert of(ids) == []
    assert [port for port in bound if is_listening(port)] == []
    assert not any((stack.data_dir / "runs" / one).exists() for one in ids)
    assert set(answers) <= {0, 404}, answers
    assert files_below(stack.blob_root, workspace["id"]) == []
    assert len(of([neighbour])) >= 2
    report = stack.client.get(address).json()
    assert (report["deleted"]["jobs"], report["deleted"]["deployments"]) == (JOBS, DEPLOYMENTS)
    print(f"{JOBS} jobs, {DEPLOYMENTS} deployments and {UPLOADS} uploads were gone in {took_s:.1f} s")  # noqa: T201 -- a figure
    stack.client.post("/apis/jobs/v2/workspaces/neighbour/jobs/job-0/cancel")
    stack.wait_until(lambda: of([neighbour]) == [], "the neighbour's job is gone, now that it was cancelled")


def test_a_host_that_never_answers_ends_in_failed_and_can_be_skipped(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    settings = SETTINGS | {"waiting_limit_seconds": 2, "fruitless_passes": 2, "backoff_cap_seconds": 0.5}
    with Stack(tmp_path_factory.mktemp("gone"), **settings) as stack:
        stack.client.post(W, json={"name": "stranded"})
        job = submit(stack, "stranded", 0)
        path = "/apis/jobs/v2/workspaces/stranded/jobs"
        stack.wait_until(lambda: statuses(stack, path) == ["active"], "the job runs")
        for part in stack.running("runtime"):
            part.kill()

        deletion = stack.client.delete(f"{W}/stranded").json()["deletion_id"]

        address = f"/apis/entities/v2/deletions/{deletion}"
        stack.wait_until(
            lambda: stack.client.get(address).json()["state"] == "FAILED", "it is FAILED", timeout_s=90
        )
        report = stack.client.get(address).json()
        (failure,) = [one for one in report["failures"] if one["kind"] == "jobs"]
        assert "waiting for host 'here'" in failure["message"]
        assert failure["resource_id"] == job
        stack.wait_until(lambda: of([job]) == [], "the keeper ended the job when its worker died")
        reason = {"kind": "jobs", "resource_id": job, "reason": "that machine is gone"}
        assert stack.client.post(f"{address}/skip", json=reason).status_code == 200
        stack.wait_until(lambda: stack.client.get(address).json()["state"] == "DONE", "it is DONE")
