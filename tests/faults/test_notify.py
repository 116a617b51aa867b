"""Notifications by the real processes: from a DELETE to a receiver that is away, and a worker that is killed."""

from collections.abc import Iterator

import pytest

from tests.notifications.receiver import Receiver, free_port, receiving
from tests.support.deadlines import DEADLINE_S
from tests.support.stack import Stack

WEBHOOKS = "/apis/entities/v2/webhooks"
PARTS = ("web", "worker", "maintenance", "beat", "notify")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {
        "webhooks_to_private_addresses": True,
        "sweep_seconds": 1,
        "requeue_after_seconds": 1,
        "lease_seconds": 20,
        "task_soft_limit_seconds": 17,
        "task_hard_limit_seconds": 18,
        "slice_seconds": 5,
        "webhook_timeout_seconds": 10,
    }
    with Stack(tmp_path_factory.mktemp("notify"), parts=PARTS, **settings) as stack:
        yield stack


def delete(stack: Stack, name: str) -> None:
    assert stack.client.post("/apis/entities/v2/workspaces", json={"name": name}).status_code == 201
    assert stack.client.delete(f"/apis/entities/v2/workspaces/{name}").is_success


def types_of(receiver: Receiver, secret: str, name: str) -> set[str]:
    documents = receiver.documents(secret)
    return {one["type"] for one in documents if one["data"]["workspace_name"] == name}


def test_a_receiver_hears_of_a_deletion_also_if_it_was_away_and_the_worker_killed(stack: Stack) -> None:
    port = free_port()
    made = stack.client.post(WEBHOOKS, json={"url": f"http://127.0.0.1:{port}/"}).json()
    path = f"{WEBHOOKS}/{made['id']}"
    all_ = {"deletion.requested", "deletion.started", "deletion.finished"}
    delete(stack, "while-away")

    def has_failed() -> bool:
        listed = stack.client.get(f"{path}/deliveries").json()["data"]
        return any(one["attempts"] for one in listed)

    stack.wait_until(has_failed, "the receiver was not tried")
    with receiving(port) as receiver:
        stack.wait_until(
            lambda: types_of(receiver, made["secret"], "while-away") == all_, "it did not hear of all"
        )

        killed: list[str] = []

        def kill_once() -> None:
            """The request has arrived, and its worker dies before it gets the answer."""
            if not killed:
                killed.append(receiver.received[-1].message_id)
                for part in stack.running("notify"):
                    part.kill()

        receiver.meanwhile = kill_once
        delete(stack, "worker-killed")
        stack.wait_until(lambda: killed, "nothing was sent")
        stack.start("notify")
        stack.wait_until(
            lambda: types_of(receiver, made["secret"], "worker-killed") == all_,
            "it did not hear of all after the worker was killed",
            timeout_s=DEADLINE_S,
        )

        assert [one.message_id for one in receiver.received].count(killed[0]) == 2
    assert made["secret"] not in stack.log("notify") + stack.log("web")
