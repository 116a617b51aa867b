"""A workspace is deleted while everything in it runs: what the process table, the ports and the store say afterwards.

The peer leaves jobs and servers running, and files of uploads that were under way (its weaknesses W3, W10, W11, W14).
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from devstack.processes import port_is_free
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Within
from tests.support.processes import FEWEST, NewWord, living, stubborn, stubborn_server
from tests.support.stack import Stack
from tests.support.stores import Store, keeping

JOBS, DEPLOYMENTS, UPLOADS = 20, 5, 4
CROWDS = [
    pytest.param("disk", 6, 2, id="disk"),
    pytest.param("disk", JOBS, DEPLOYMENTS, id="disk and many", marks=pytest.mark.long),
    # What runs does not know which store there is, and an upload to a bucket is deleted in tests/storage, too.
    pytest.param("bucket", JOBS, DEPLOYMENTS, id="bucket and many", marks=pytest.mark.long),
]
GONE_WITHIN_S = 30.0
"""Several times what two busy cores take; the product itself would wait for longer."""
SETTINGS: dict[str, Any] = {
    "runtime_lease_seconds": 4,
    "runtime_poll_seconds": 0.2,
    "stop_grace_seconds": 1,
    "sweep_seconds": 1,
    "requeue_after_seconds": 1,
    "waiting_poll_min_seconds": 0.2,
    "waiting_poll_max_seconds": 1,
    "database_pool_size": 10,
    "runtime_host": "here",
}
W = "/apis/entities/v2/workspaces"
MEGABYTE = b"x" * 1024 * 1024
logging.getLogger("httpx").setLevel(logging.WARNING)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with keeping(request.param, tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[Stack]:
    environment = {"WEB_CONCURRENCY": "2", **store.environment}
    with Stack(
        tmp_path_factory.mktemp("running"), environment=environment, storage_url=store.url, **SETTINGS
    ) as stack:
        yield stack


def submit(stack: Stack, workspace: str, name: str, script: str) -> str:
    step = {"name": "main", "executor": {"provider": "subprocess", "command": ["sh", "-c", script]}}
    answer = stack.client.post(
        f"/apis/jobs/v2/workspaces/{workspace}/jobs",
        json={"name": name, "source": "tests", "spec": {}, "platform_spec": {"steps": [step]}},
    )
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def deploy(stack: Stack, workspace: str, command: list[str], *, number: int) -> list[str]:
    """So many servers of one configuration; their ids."""
    base = f"/apis/models/v2/workspaces/{workspace}"
    executor = {"gpu": 0, "health_check_path": "/", "override_config": {"command": command}}
    config = {"name": "server", "engine": "generic", "model_spec": {}, "executor_config": executor}
    assert stack.client.post(f"{base}/deployment-configs", json=config).status_code == 201
    ids = []
    for one in range(number):
        wanted = {"name": f"server-{one}", "config": "server"}
        answer = stack.client.post(f"{base}/deployments", json=wanted)
        assert answer.status_code == 201, answer.text
        ids.append(answer.json()["id"])
    return ids


def statuses(stack: Stack, path: str) -> list[str]:
    page = stack.client.get(path, params={"page_size": 100}).json()
    return [one["status"] for one in page["data"]]


def ports(stack: Stack, workspace: str) -> list[int]:
    page = stack.client.get(f"/apis/models/v2/workspaces/{workspace}/deployments").json()
    return [int(one["status_message"].rpartition(":")[2]) for one in page["data"]]


class Upload:
    """A client that sends without end, until it is told to come to one."""

    def __init__(self, stack: Stack, workspace: str, path: str) -> None:
        self._url = f"{stack.api_url}/apis/files/v2/workspaces/{workspace}/filesets/data/-/{path}"
        self._is_over = threading.Event()
        self._answer = 0
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        def content() -> Iterator[bytes]:
            for _ in range(9):  # More than a part of a multipart upload: something of it lies in a bucket.
                yield MEGABYTE
            while not self._is_over.wait(0.05):
                yield b"x" * 10_000

        with suppress(httpx.TransportError):
            self._answer = httpx.put(self._url, content=content(), timeout=60).status_code

    def end(self) -> int:
        """The status it was answered with, 0 if the server hung up."""
        self._is_over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self._answer


@pytest.mark.parametrize(("store", "jobs", "deployments"), CROWDS, indirect=["store"])
def test_a_workspace_goes_with_everything_that_runs_in_it(
    stack: Stack, store: Store, within: Within, new_word: NewWord, jobs: int, deployments: int
) -> None:
    stack.client.post(W, json={"name": "neighbour"})
    word, neighbours = new_word(), new_word()
    submit(stack, "neighbour", "job", f"sleep {neighbours}")
    stack.client.post("/apis/files/v2/workspaces/neighbour/filesets", json={"name": "data"})
    stack.client.put("/apis/files/v2/workspaces/neighbour/filesets/data/-/kept", content=b"kept")
    kept = store.paths()
    assert any("kept" in path for path in kept)

    workspace_id = stack.client.post(W, json={"name": "busy"}).json()["id"]
    files = "/apis/files/v2/workspaces/busy/filesets"
    assert stack.client.post(files, json={"name": "data"}).is_success
    assert stack.client.put(f"{files}/data/-/whole", content=MEGABYTE).is_success
    ids = deploy(stack, "busy", stubborn_server(word), number=deployments)
    for number in range(jobs):
        script = stubborn(word) if number % 2 else f"sleep {word}; :"
        ids.append(submit(stack, "busy", f"job-{number}", script))
    its_jobs, its_deployments = (
        "/apis/jobs/v2/workspaces/busy/jobs",
        "/apis/models/v2/workspaces/busy/deployments",
    )
    stack.wait_until(lambda: statuses(stack, its_jobs) == ["active"] * jobs, "all jobs run")
    stack.wait_until(lambda: statuses(stack, its_deployments) == ["READY"] * deployments, "all servers serve")
    # Of each server and each modest job its reaper, itself, and its `sleep`.
    fewest = FEWEST * jobs // 2 + 3 * jobs // 2 + 3 * deployments
    stack.wait_until(lambda: len(living(word)) >= fewest, "every process of them lives")
    bound = ports(stack, "busy")
    assert not any(port_is_free(port) for port in bound)
    uploads = [Upload(stack, "busy", f"late-{number}") for number in range(UPLOADS)]
    stack.wait_until(
        lambda: (
            sum("late" in path or "staging" in path for path in set(store.paths()) - set(kept)) >= UPLOADS
        ),
        "something of each upload is in the store",
    )

    deletion = stack.client.delete(f"{W}/busy").json()["deletion_id"]

    address = f"/apis/entities/v2/deletions/{deletion}"
    answers: list[int] = []

    def is_done() -> bool:
        report = stack.client.get(address).json()
        assert report["state"] in {"DELETING", "DONE"}, report
        if report["phase"] == "filesets" and not answers:
            answers.extend(upload.end() for upload in uploads[: UPLOADS // 2])
        return report["state"] == "DONE"

    took_s = stack.wait_until(is_done, "the deletion is DONE", timeout_s=2 * DEADLINE_S)

    assert living(word) == []
    assert [port for port in bound if not port_is_free(port)] == []
    assert not any(stack.directories_of(one) for one in ids)
    # The others have noticed nothing yet: they do when they want to publish what they have sent.
    answers.extend(upload.end() for upload in uploads[len(answers) :])
    assert set(answers) <= {0, 404}, answers
    assert [path for path in store.paths() if workspace_id in path] == []
    assert store.paths() == kept
    report = stack.client.get(address).json()
    assert (report["deleted"]["jobs"], report["deleted"]["deployments"]) == (jobs, deployments)
    scheme = store.url.partition(":")[0]
    within(
        f"{jobs} jobs, {deployments} deployments, {UPLOADS} uploads, {scheme}: gone", took_s, GONE_WITHIN_S
    )

    assert len(living(neighbours)) >= 2
    stack.client.post("/apis/jobs/v2/workspaces/neighbour/jobs/job/cancel")
    stack.wait_until(lambda: living(neighbours) == [], "the neighbour's job is gone once it is cancelled")


def test_a_host_that_never_answers_ends_in_failed_and_can_be_skipped(
    tmp_path_factory: pytest.TempPathFactory, new_word: NewWord
) -> None:
    settings = SETTINGS | {"waiting_limit_seconds": 2, "max_attempts": 2, "backoff_cap_seconds": 0.5}
    with Stack(tmp_path_factory.mktemp("gone"), **settings) as stack:
        stack.client.post(W, json={"name": "stranded"})
        word = new_word()
        job = submit(stack, "stranded", "job", stubborn(word))
        stack.wait_until(lambda: len(living(word)) >= FEWEST, "the job runs")
        for part in stack.running("runtime"):
            part.kill()

        deletion = stack.client.delete(f"{W}/stranded").json()["deletion_id"]

        address = f"/apis/entities/v2/deletions/{deletion}"
        stack.wait_until(lambda: stack.client.get(address).json()["state"] == "FAILED", "it is FAILED")
        report = stack.client.get(address).json()
        (failure,) = [one for one in report["failures"] if one["kind"] == "jobs"]
        assert "waiting for host 'here'" in failure["message"]
        assert failure["resource_id"] == job
        stack.wait_until(lambda: living(word) == [], "the reaper ended the job when its worker died")
        reason = {"kind": "jobs", "resource_id": job, "reason": "that machine is gone"}
        assert stack.client.post(f"{address}/skip", json=reason).status_code == 200
        stack.wait_until(lambda: stack.client.get(address).json()["state"] == "DONE", "it is DONE")
