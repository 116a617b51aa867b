"""Messages in the broker that no program of ours has sent. Each is rejected, and the workers stay."""

import base64
import json
from typing import Any

import pytest
import redis

from app.config import Settings
from tests.faults.world import World
from tests.support.deadlines import DEADLINE_S
from workers.celery_app import configure

QUEUES = {"worker": "cleanup", "maintenance": "maintenance", "runtime": "runtime"}


def message(
    *,
    body: Any = ...,
    headers: dict[str, Any] | None = None,
    properties: dict[str, Any] | None = None,
    **envelope: Any,
) -> str:
    """A message as Celery sends it, but for these."""
    parts = [[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    text = json.dumps(parts if body is ... else body)
    usual = {
        "task": "workspace.maintenance.sweep",
        "id": "7c1f4e1e-0000-4000-8000-000000000000",
        "lang": "py",
    }
    delivery = {"exchange": "", "routing_key": "cleanup"}
    whole: dict[str, Any] = {
        "body": base64.b64encode(text.encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {**usual, **(headers or {})},
        "properties": {
            "delivery_tag": "tag",
            "body_encoding": "base64",
            "delivery_info": delivery,
            **(properties or {}),
        },
    }
    return json.dumps(whole | {name.replace("_", "-"): value for name, value in envelope.items()})


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


POISON: dict[str, str | bytes] = {
    **{
        f"body {json.dumps(body)}": message(body=body)
        for body in ([], {}, 1, None, [[]], [[], {}, {}, {}], [{}, [], {}])
    },
    "a callback": message(body=[[], {}, {"callbacks": [{"task": "x"}]}]),
    "a time limit that is a number": message(headers={"timelimit": 1}),
    "time limits that are text": message(headers={"timelimit": ["x", "y"]}),
    "three time limits": message(headers={"timelimit": [1, 2, 3]}),
    "an infinite time limit": message(headers={"timelimit": [1e400, None]}).replace("Infinity", "1e400"),
    "an id that is a list": message(headers={"id": [1]}),
    "no id": message(headers={"id": None}),
    "a name that is a list": message(headers={"task": ["x"]}),
    "a shadow that is a list": message(headers={"shadow": [1]}),
    "retries that are text": message(headers={"retries": "x"}),
    "an eta that is a number": message(headers={"eta": 5}),
    "another encoding": message(properties={"body_encoding": "rot13"}),
    "no delivery tag": message(properties={"delivery_tag": None}),
    "a priority that is text": message(properties={"priority": "x"}),
    "delivery info that is a list": message(properties={"delivery_info": []}),
    "headers that are a list": json.dumps(json.loads(message()) | {"headers": []}),
    "a body that is no base64": json.dumps(json.loads(message()) | {"body": "%%%"}),
    "a pickle": message(content_type="application/x-python-serialize"),
    "no JSON": b"hello",
    "no UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "empty": b"",
    "an empty object": b"{}",
    "deep": b"[" * 100_000,
    "deep headers": message(headers={"unknown": "DEEP"}).replace('"DEEP"', json.dumps(nested(400))),
    "a type of kombu's": b'{"__type__": "uuid", "__value__": 5}',
}
HARMLESS = {"deep headers"}
"""Of an unknown header nothing is taken over."""


def test_no_message_ends_a_worker_or_comes_back(world: World) -> None:
    """Each of them would have ended a worker, some of them the next ones too, and after five the whole stack."""
    workers = {name: world.one(name) for name in QUEUES}
    before = {name: count(world, name) for name in workers}
    with redis.Redis.from_url(world.stack.broker_url) as broker:
        for poison in POISON.values():
            for queue in QUEUES.values():
                broker.lpush(f"workspaces:{queue}", poison)
        world.stack.wait_until(
            lambda: not any(broker.llen(f"workspaces:{queue}") for queue in QUEUES.values()), "all are taken"
        )
    rejected = len(POISON) - len(HARMLESS)

    for name, worker in workers.items():
        world.stack.wait_until(
            lambda name=name, worker=worker: (
                not worker.is_alive  # type: ignore[misc]
                or count(world, name) - before[name] >= rejected
            ),
            f"{name} has rejected them",
        )
        assert worker.is_alive, name
        assert count(world, name) - before[name] == rejected, name
        assert world.stack.running(name) == [worker]
    doomed = world.fill()
    world.wait_for_state(world.delete(doomed.name), "DONE")
    assert world.left_of(doomed.id) == []


@pytest.mark.parametrize("stored", [b"hello", b"[]", b"{}", b"\xff"])
def test_what_only_looks_like_a_message_under_way_ends_no_worker(world: World, stored: bytes) -> None:
    """Workers look there for messages of others that have died."""
    workers = [world.one(name) for name in QUEUES]
    with redis.Redis.from_url(world.stack.broker_url) as broker:
        broker.hset("workspaces:unacked", "tag", stored)
        broker.zadd("workspaces:unacked_index", {"tag": 0})
        world.stack.wait_until(
            lambda: (
                not broker.hexists("workspaces:unacked", "tag")
                or not all(worker.is_alive for worker in workers)
            ),
            "it is taken away",
        )
        assert broker.zscore("workspaces:unacked_index", "tag") is None

    assert all(worker.is_alive for worker in workers)


def test_rejected_messages_are_counted_in_the_metrics(world: World) -> None:
    def counted() -> float:
        lines = world.stack.client.get("/metrics").text.splitlines()
        found = [
            line for line in lines if line.startswith('workspaces_messages_rejected_total{process="cleanup"}')
        ]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    before = counted()
    with redis.Redis.from_url(world.stack.broker_url) as broker:
        broker.lpush("workspaces:cleanup", b"hello")

    # Of those before it some may not have been noted by then.
    world.stack.wait_until(lambda: counted() > before, "it is counted")


@pytest.mark.parametrize("published", [b"hello", b"[]", b"{}", b'{"body": 1, "properties": 1}', b"\xff"])
def test_what_is_published_to_all_workers_ends_none(world: World, published: bytes) -> None:
    workers = [world.one(name) for name in QUEUES]
    with redis.Redis.from_url(world.stack.broker_url) as broker:
        assert broker.publish("workspaces:/0.celery.pidbox", published) == len(workers)

    doomed = world.fill()
    world.wait_for_state(world.delete(doomed.name), "DONE")

    assert all(worker.is_alive for worker in workers)
    app = configure(Settings(database_url=world.stack.database_url, broker_url=world.stack.broker_url))
    assert len(app.control.ping(timeout=DEADLINE_S, limit=len(workers))) == len(workers)


def count(world: World, name: str) -> int:
    return world.one(name).log.count("message.rejected")


def test_the_lines_of_a_worker_name_the_request_that_its_work_goes_back_to(world: World) -> None:
    deletions = {}
    # On a busy machine a sweep, which goes back to no request, would enqueue messages too.
    world.one("beat").stop()
    for request_id in ("request-of-ann", "request-of-ben"):
        doomed = world.fill()
        path = f"/apis/entities/v2/workspaces/{doomed.name}"
        answer = world.stack.client.delete(path, headers={"X-Request-Id": request_id})
        deletions[request_id] = answer.json()["deletion_id"]

    for deletion in deletions.values():
        world.wait_for_state(deletion, "DONE")

    # Jobs and deployments were stopped meanwhile, each in several tasks, retries among them.
    log = world.stack.log("worker").splitlines()
    lines = [line for line in log if "deletion.finished" in line]
    for request_id, deletion in deletions.items():
        [line] = [one for one in lines if deletion in one]
        assert f"request_id={request_id}" in line
        assert [one for one in log if "received" in one and f"request_id={request_id}" in one]
