"""Clients that go on creating while their workspace is deleted, all through the API."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from threading import Event

import httpx

from tests.faults.world import MESSAGE_LOST_S, WORK_S, World, seconds_since
from tests.support.figures import Within

ENTITIES, FILES, JOBS = (
    "/apis/entities/v2/workspaces",
    "/apis/files/v2/workspaces",
    "/apis/jobs/v2/workspaces",
)
# Less than the 64 KiB that gunicorn reads of an upload refused unread; after more it drops the connection.
BYTES = b"x" * 50_000
BEFORE, AFTER = 5, 5  # requests that each creator has answered before the DELETE, and starts after its answer
PIECE = 1000

Create = Callable[[httpx.Client, str, str], httpx.Response]


def create_project(client: httpx.Client, workspace: str, name: str) -> httpx.Response:
    return client.post(f"{ENTITIES}/{workspace}/projects", json={"name": name})


def create_entity(client: httpx.Client, workspace: str, name: str) -> httpx.Response:
    return client.post(f"{ENTITIES}/{workspace}/entities/widget", json={"name": name, "data": {}})


def create_fileset(client: httpx.Client, workspace: str, name: str) -> httpx.Response:
    return client.post(f"{FILES}/{workspace}/filesets", json={"name": name})


def upload(client: httpx.Client, workspace: str, name: str) -> httpx.Response:
    return client.put(f"{FILES}/{workspace}/filesets/shared/-/{name}/file.bin", content=BYTES)


def create_job(client: httpx.Client, workspace: str, name: str) -> httpx.Response:
    step = {"name": "only", "executor": {"provider": "subprocess", "command": ["true"]}}
    job = {"name": name, "source": "tests", "spec": {}, "platform_spec": {"steps": [step]}}
    return client.post(f"{JOBS}/{workspace}/jobs", json=job)


CREATORS: dict[str, Create] = {
    "projects": create_project,
    "entities": create_entity,
    "filesets": create_fileset,
    "uploads": upload,
    "jobs": create_job,
}


@dataclass(frozen=True)
class Request:
    kind: str
    started_at: float
    status: int

    @property
    def succeeded(self) -> bool:
        return self.status < 400


def test_nothing_is_created_once_delete_has_answered(world: World, within: Within) -> None:
    workspace, neighbour = world.fill(each=0), world.fill()
    assert create_fileset(world.stack.client, workspace.name, "shared").is_success
    requests: list[Request] = []
    stop = Event()

    def keep_creating(kind: str, create: Create) -> None:
        with httpx.Client(base_url=world.stack.api_url, timeout=30) as client:
            for number in count():
                if stop.is_set():
                    return
                started_at = time.monotonic()
                status = create(client, workspace.name, f"{kind}-{number}").status_code
                requests.append(Request(kind, started_at, status))

    def each_has(number: int, since: float) -> bool:
        for creator in creators:
            if creator.done():
                creator.result()  # it ends early only by an exception
        seen = Counter(one.kind for one in requests if one.started_at > since)
        return all(seen[kind] >= number for kind in CREATORS)

    with ThreadPoolExecutor(len(CREATORS)) as pool:
        creators = [pool.submit(keep_creating, *creator) for creator in CREATORS.items()]
        try:
            world.stack.wait_until(lambda: each_has(BEFORE, since=0), "every creator is at work")
            deletion = world.delete(workspace.name)
            answered_at = time.monotonic()
            world.stack.wait_until(lambda: each_has(AFTER, since=answered_at), "every creator has gone on")
            world.wait_for_state(deletion, "DONE")
        finally:
            stop.set()
    for creator in creators:
        creator.result()

    within("creators racing with DELETE: DONE", seconds_since(answered_at), MESSAGE_LOST_S + WORK_S)
    assert {one.status for one in requests if one.started_at > answered_at} == {404}
    assert {one.status for one in requests} <= {200, 201, 404}
    assert world.left_of(workspace.id) == []
    made = Counter(one.kind for one in requests if one.succeeded)
    assert world.report(deletion)["deleted"] == {
        "jobs": made["jobs"],
        "filesets": 1 + made["filesets"] + made["jobs"],  # each job brings one for its results
        "entities": made["entities"],
        "projects": made["projects"],
    }
    assert world.is_untouched(neighbour)


def test_an_upload_that_outlives_its_workspace_leaves_no_byte(world: World) -> None:
    workspace = world.fill(each=0)
    assert create_fileset(world.stack.client, workspace.name, "shared").is_success
    is_gone = Event()

    def pieces() -> Iterator[bytes]:
        yield BYTES[:PIECE]
        assert is_gone.wait(60)
        yield BYTES[PIECE:]

    def upload_slowly() -> httpx.Response:
        with httpx.Client(base_url=world.stack.api_url, timeout=90) as client:
            return client.put(
                f"{FILES}/{workspace.name}/filesets/shared/-/slow.bin",
                content=pieces(),
                headers={"Content-Length": str(len(BYTES))},
            )

    with ThreadPoolExecutor(1) as pool:
        uploading = pool.submit(upload_slowly)
        try:
            staging = world.stack.blob_root / "staging" / str(workspace.id)
            world.stack.wait_until(lambda: list(staging.glob("*")), "the upload has begun")
            world.wait_for_state(world.delete(workspace.name), "DONE")
        finally:
            is_gone.set()
        answer = uploading.result()

    assert answer.status_code == 404
    assert world.left_of(workspace.id) == []
