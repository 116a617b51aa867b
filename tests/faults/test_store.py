"""A bucket that fails: for a while, slowly, in the middle of its answers, or because nobody may use it any more."""

import threading
import time
from collections.abc import Iterator
from itertools import count
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Fileset
from app.storage.blob_store import BlobStore
from tests.faults.world import EACH, MESSAGE_LOST_S, QUICK, WORK_S, Tenant, World, seconds_since
from tests.support.figures import Within
from tests.support.s3 import BUCKET, S3Server, environment, s3fs_uses, serving_s3
from tests.support.s3_proxy import FORBIDDEN, HANGING, SLOW_DOWN, TRUNCATED, Fault, Proxy, proxying
from tests.support.stack import Stack

URL = f"s3://{BUCKET}/production"
ADMIN = {"X-NMP-Principal-Id": "ada@example.com"}
OUTAGE_S = 12.0
PAUSE_S = 0.1  # between what a customer does, who would else take the processors from everybody
SLOW = Fault(delay_s=0.2)
# Until the client gives up the requests that hang, so that their files are tried again.
STORE_CLIENT_S = 10.0
# The back-off after the last failure, and what a slice of several requests to a bucket takes.
RECOVERY_S = QUICK["backoff_cap_seconds"] + MESSAGE_LOST_S + 2 * WORK_S


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(s3: S3Server) -> Iterator[Proxy]:
    with proxying(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, proxy: Proxy) -> Iterator[Stack]:
    settings = {**QUICK, "item_timeout_seconds": 1.5, "max_attempts": 100}
    with Stack(
        tmp_path_factory.mktemp("store"),
        environment=environment(proxy.endpoint),
        storage_url=URL,
        **settings,
    ) as stack:
        yield stack


@pytest.fixture
def world(world: World, s3: S3Server, proxy: Proxy) -> World:
    """As the others have it, but with its files in a bucket that does not fail at first."""
    proxy.fail(None)
    with s3fs_uses(s3.endpoint):
        world.store = BlobStore.open(URL)
    return world


def keys(s3: S3Server, tenant: Tenant) -> list[str]:
    return s3.keys(f"production/files/{tenant.id}/")


def filesets_of(world: World, tenant: Tenant) -> list[UUID]:
    with Session(world.engine) as session:
        query = select(Fileset.id).where(Fileset.workspace_id == tenant.id).order_by(Fileset.name)
        return list(session.scalars(query))


def asked(proxy: Proxy, stack: Stack, times: int, fault: Fault, *, about: str) -> None:
    """Let the store fail so until it was asked that often about something."""

    def count_asked() -> int:
        return sum(about in request for request in proxy.requests)

    before = count_asked()
    proxy.fail(fault)
    stack.wait_until(lambda: count_asked() >= before + times, f"the store was asked {times} times")


class Customer:
    """Somebody who writes and reads one file all the while, and remembers the statuses of the answers."""

    def __init__(self, stack: Stack, workspace: str) -> None:
        self._url = f"{stack.api_url}/apis/files/v2/workspaces/{workspace}/filesets/fileset-0/-/mine"
        self._possible: set[bytes] = set()
        self._is_over = threading.Event()
        self.statuses: list[int] = []
        self.wrong: list[bytes] = []
        """What was read and is not, as a whole, what may have been written last."""
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        with httpx.Client(timeout=60) as client:
            for number in count():
                is_last = self._is_over.is_set()
                self._write(client, str(number).encode() * 3_000)
                self._read(client)
                if is_last:
                    return
                self._is_over.wait(PAUSE_S)

    def _write(self, client: httpx.Client, content: bytes) -> None:
        status = client.put(self._url, content=content).status_code
        self.statuses.append(status)
        # What was answered with an error can have been stored all the same: the store's answer was lost.
        self._possible = {content} if status == 200 else self._possible | {content}

    def _read(self, client: httpx.Client) -> None:
        try:
            answer = client.get(self._url)
        except httpx.RemoteProtocolError:
            return  # broken off, and so it was not taken for whole
        self.statuses.append(answer.status_code)
        if answer.status_code == 200 and answer.content not in self._possible:
            self.wrong.append(answer.content)

    def end(self) -> list[int]:
        """Stop after one more write and read; their statuses."""
        self._is_over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.statuses[-2:]


@pytest.fixture
def customer(world: World, stack: Stack) -> Iterator[Customer]:
    customer = Customer(stack, world.fill().name)
    stack.wait_until(lambda: 200 in customer.statuses, "somebody works")
    yield customer
    customer.end()


def post(stack: Stack, deletion: str, what: str, **body: Any) -> None:
    answer = stack.client.post(f"/apis/entities/v2/deletions/{deletion}/{what}", json=body, headers=ADMIN)
    assert answer.status_code == 200, answer.text


def test_a_deletion_outlives_a_store_that_is_down_then_slow_then_breaks_off(
    world: World, stack: Stack, s3: S3Server, proxy: Proxy, customer: Customer, within: Within
) -> None:
    doomed, neighbour = world.fill(), world.fill(each=1)
    neighbours = keys(s3, neighbour)
    proxy.fail(SLOW_DOWN)
    started = time.monotonic()
    deletion = world.delete(doomed.name)

    stack.wait_until(lambda: seconds_since(started) > OUTAGE_S, "the outage is over")
    report = world.report(deletion)
    assert report["state"] == "DELETING"
    messages = [each["message"] for each in report["failures"]]
    assert any("SlowDown: Please reduce your request rate" in message for message in messages), messages
    assert {failure["error_class"] for failure in report["failures"]} == {"transient"}
    # Which only those ask who delete.
    asked(proxy, stack, 5, SLOW, about="?uploads&")
    asked(proxy, stack, 5, TRUNCATED, about="?uploads&")
    proxy.fail(None)
    recovered = time.monotonic()
    world.wait_for_state(deletion, "DONE")

    within("store down, slow, cut off, and back: DONE", seconds_since(recovered), RECOVERY_S)
    assert "failed" not in world.events(deletion)
    assert customer.end() == [200, 200]
    assert set(customer.statuses) == {200, 503}
    assert customer.wrong == []
    assert (world.left_of(doomed.id), keys(s3, doomed)) == ([], [])
    assert world.is_untouched(neighbour)
    assert keys(s3, neighbour) == neighbours != []


def test_a_deletion_whose_store_hangs_is_tried_again_with_that_reason(
    world: World, stack: Stack, s3: S3Server, proxy: Proxy, within: Within
) -> None:
    doomed, neighbour = world.fill(), world.fill(each=1)
    proxy.fail(HANGING, only=str(doomed.id))
    deletion = world.delete(doomed.name)

    stack.wait_until(lambda: world.report(deletion)["attempts"] >= 2, "no progress in two passes")
    assert any("TimeoutError: no answer" in each["message"] for each in world.report(deletion)["failures"])
    assert f"{doomed.name} filesets: 0 deleted" not in stack.log("worker")
    other = world.delete(neighbour.name)
    world.wait_for_state(other, "DONE")
    assert world.report(deletion)["state"] == "DELETING"

    proxy.fail(None)
    healed = time.monotonic()
    world.wait_for_state(deletion, "DONE")
    within("store hung: DONE after it answers", seconds_since(healed), STORE_CLIENT_S + RECOVERY_S)
    assert (world.left_of(doomed.id), keys(s3, doomed)) == ([], [])


def test_the_api_says_that_the_store_fails_and_goes_on_when_it_is_back(
    world: World, stack: Stack, proxy: Proxy
) -> None:
    tenant = world.fill()
    url = f"/apis/files/v2/workspaces/{tenant.name}/filesets/fileset-0/-/a/b.txt"

    for fault in (SLOW_DOWN, FORBIDDEN, TRUNCATED):
        proxy.fail(fault)
        for answer in (stack.client.get(url), stack.client.put(url, content=b"new")):
            assert answer.status_code == 503
            assert answer.json()["detail"].startswith("The storage failed")
    proxy.fail(None)

    assert stack.client.get(url).content == b"bytes"
    assert " 500 " not in stack.log("web")


def test_a_download_that_the_store_breaks_off_is_not_taken_for_whole(
    world: World, stack: Stack, proxy: Proxy
) -> None:
    tenant = world.fill()
    url = f"/apis/files/v2/workspaces/{tenant.name}/filesets/fileset-0/-/large"
    assert stack.client.put(url, content=b"x" * 12_000_000).status_code == 200
    pieces = count()
    # The first piece of the file comes, and no other.
    proxy.choose = lambda method, target: (
        SLOW_DOWN if method == "GET" and target.endswith("/large") and next(pieces) else None
    )

    with pytest.raises(httpx.RemoteProtocolError):
        stack.client.get(url)

    proxy.fail(None)
    assert len(stack.client.get(url).content) == 12_000_000


def test_revoked_credentials_fail_at_once_and_a_retry_finishes_once_they_are_restored(
    world: World, stack: Stack, s3: S3Server, proxy: Proxy, within: Within
) -> None:
    doomed, neighbour = world.fill(), world.fill(each=1)
    proxy.fail(FORBIDDEN)
    started = time.monotonic()
    deletion = world.delete(doomed.name)
    world.wait_for_state(deletion, "FAILED")

    within("credentials revoked: FAILED", seconds_since(started), MESSAGE_LOST_S + 2 * WORK_S)
    report = world.report(deletion)
    assert (
        "PermissionError: InvalidAccessKeyId: The Access Key Id you provided does not exist"
        in report["reason"]
    )
    assert {failure["error_class"] for failure in report["failures"]} == {"permanent"}
    assert report["next_reattempt_at"] is None
    assert keys(s3, doomed) != []
    said = str(report) + stack.log("worker")
    assert "secret" not in said.replace("secrets", "")

    proxy.fail(None)
    post(stack, deletion, "retry")
    world.wait_for_state(deletion, "DONE")

    assert (world.left_of(doomed.id), keys(s3, doomed)) == ([], [])
    assert world.is_untouched(neighbour)
    assert keys(s3, neighbour) != []


def test_a_deletion_can_be_forced_while_nobody_may_delete(
    world: World, stack: Stack, s3: S3Server, proxy: Proxy
) -> None:
    doomed = world.fill()
    before = keys(s3, doomed)
    # A right that was withdrawn; looking is still allowed, or nobody could know what is left.
    proxy.choose = lambda method, target: FORBIDDEN if method in {"DELETE", "POST"} else None
    deletion = world.delete(doomed.name)
    world.wait_for_state(deletion, "FAILED")
    assert {each["kind"] for each in world.report(deletion)["failures"]} == {"filesets"}

    post(stack, deletion, "force", reason="the bucket is read-only by now")
    world.wait_for_state(deletion, "DONE")

    assert keys(s3, doomed) == before != []
    assert world.left_of(doomed.id) == []


def forced_without_access(
    world: World, stack: Stack, s3: S3Server, proxy: Proxy, doomed: Tenant
) -> tuple[str, list[str]]:
    """A deletion that fails again because nobody may even look what its store holds; and what that was before."""
    before = keys(s3, doomed)
    proxy.fail(FORBIDDEN)
    deletion = world.delete(doomed.name)
    world.wait_for_state(deletion, "FAILED")

    post(stack, deletion, "force", reason="they will not be restored")
    stack.wait_until(
        lambda: {each["kind"] for each in world.report(deletion)["failures"]} >= {"store"}, "looked"
    )
    world.wait_for_state(deletion, "FAILED")
    assert "InvalidAccessKeyId" in world.report(deletion)["reason"]
    return deletion, before


def test_a_forced_deletion_ends_once_somebody_can_look_into_the_store_again(
    world: World, stack: Stack, s3: S3Server, proxy: Proxy
) -> None:
    doomed = world.fill()
    deletion, before = forced_without_access(world, stack, s3, proxy, doomed)

    proxy.fail(None)
    post(stack, deletion, "retry")
    world.wait_for_state(deletion, "DONE")

    assert keys(s3, doomed) == before != []


def test_a_store_that_is_lost_for_good_can_be_given_up(
    world: World, stack: Stack, s3: S3Server, proxy: Proxy
) -> None:
    doomed = world.fill()
    deletion, before = forced_without_access(world, stack, s3, proxy, doomed)

    post(stack, deletion, "skip", kind="store", resource_id="*", reason="the account was closed")
    world.wait_for_state(deletion, "DONE")

    assert keys(s3, doomed) == before != []
    [given_up] = [each for each in world.report(deletion)["failures"] if each["kind"] == "store"]
    assert given_up["skip_reason"] == "the account was closed"


def test_a_fileset_that_nobody_may_delete_can_be_skipped(
    world: World, stack: Stack, s3: S3Server, proxy: Proxy
) -> None:
    doomed = world.fill()
    forbidden = filesets_of(world, doomed)[1]
    proxy.fail(Fault(403, "AccessDenied", "The object is under legal hold"), only=str(forbidden))
    deletion = world.delete(doomed.name)
    world.wait_for_state(deletion, "FAILED")
    assert world.report(deletion)["deleted"]["filesets"] == EACH - 1

    post(stack, deletion, "skip", kind="filesets", resource_id=str(forbidden), reason="legal hold")
    world.wait_for_state(deletion, "DONE")

    left = keys(s3, doomed)
    assert left != []
    assert all(f"/{forbidden}/" in key for key in left)
