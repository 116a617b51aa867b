"""Traces of the product as it runs: each process of gunicorn and of a pool sends its own."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.world import World
from tests.support.collector import Collector, running_collector
from tests.support.stack import Stack

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    with ExitStack() as undo:
        stack = Stack(
            tmp_path_factory.mktemp("traces"),
            environment={"OTEL_BSP_SCHEDULE_DELAY": "200", "NO_PROXY": "127.0.0.1"},
            traces_url=collector.url,
            log_format="json",
            # Slices are enqueued by the one before. The sweep, which does it after a while, begins another trace.
            requeue_after_seconds=600,
            publish_timeout_seconds=30,
        )
        undo.enter_context(stack)
        yield stack


def test_one_trace_leads_through_the_processes_from_a_delete_to_its_end(
    world: World, collector: Collector
) -> None:
    doomed = world.fill()

    answer = world.stack.client.delete(
        f"/apis/entities/v2/workspaces/{doomed.name}", headers={"traceparent": f"00-{TRACE}-{CALLER}-01"}
    )

    world.wait_for_state(answer.json()["deletion_id"], "DONE")
    collector.wait_until(
        lambda: [one for one in collector.spans if one.name == "finalize" and one.trace_id == TRACE],
        "the end of the deletion in the trace of its request",
    )
    spans = {one.id: one for one in collector.spans if one.trace_id == TRACE}
    [request] = [one for one in spans.values() if one.kind == "SERVER"]
    [end] = [one for one in spans.values() if one.name == "finalize"]
    collector.wait_until(
        lambda: all(
            one.parent_id in {other.id for other in collector.spans} | {CALLER}
            for one in collector.spans
            if one.trace_id == TRACE
        ),
        "every span between them",
    )
    spans = {one.id: one for one in collector.spans if one.trace_id == TRACE}
    path = [end]
    while path[-1].parent_id != CALLER:
        path.append(spans[path[-1].parent_id])
    assert path[-1] == request
    assert [one.kind for one in path[:2]] == ["INTERNAL", "CONSUMER"]
    assert {f"clean {kind}" for kind in doomed.rows} <= {one.name for one in spans.values()}
    assert f'"trace_id": "{TRACE}"' in world.stack.log("worker")
    # Sweeps went on meanwhile, in traces of their own.
    assert not [one for one in spans.values() if "maintenance" in one.name]


def test_a_collector_that_hangs_holds_up_no_process_and_no_deletion(
    world: World, collector: Collector
) -> None:
    collector.answers.clear()
    collector.asked.clear()
    doomed = world.fill()

    answer = world.stack.client.delete(f"/apis/entities/v2/workspaces/{doomed.name}")

    world.wait_for_state(answer.json()["deletion_id"], "DONE")
    for part in world.stack.parts:
        if part.is_alive:
            part.stop()
    assert collector.asked.is_set()
    assert not collector.answers.is_set()
