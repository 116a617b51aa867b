"""The answer to DELETE, by what is in the workspace. Destruction is paused, and each deletion called off again."""

from collections.abc import Iterator
from functools import partial
from statistics import median
from time import perf_counter

from bench.contents import make_workspaces
from bench.deleting import DELETIONS, begin, pause
from bench.figures import Figure, Goal, Row
from bench.run import Part, Run, alternate
from bench.usage import cpu_s

_THOUSAND, _MANY = "a thousand entities inside", "100,000 entities inside"
_TIMES = {
    _THOUSAND: Row(f"answer to DELETE, {_THOUSAND}: time", "ms", "none inside"),
    _MANY: Row(f"answer to DELETE, {_MANY}: time", "ms", "none inside", (Goal(1.3),)),
}
_CPU = {name: Row(f"answer to DELETE, {name}: CPU", "ms", "none inside") for name in (_THOUSAND, _MANY)}
_ONCE = 5
"""Deletions in one round."""


def _measure(run: Run) -> Iterator[Figure]:
    make_workspaces(run.product, ["none"])
    run.filled("thousand", 1_000)
    run.filled("many", run.scale.some)
    names = {"none": "none", _THOUSAND: "thousand", _MANY: "many"}
    pause(run.product, paused=True)
    try:
        found = alternate(
            run, {name: partial(_costs, run, workspace) for name, workspace in names.items()}, within_s=30
        )
    finally:
        pause(run.product, paused=False)
    for name in (_THOUSAND, _MANY):
        yield Figure(_TIMES[name], found[name]["wall_ms"], found["none"]["wall_ms"])
        yield Figure(_CPU[name], found[name]["cpu_ms"], found["none"]["cpu_ms"])


def _costs(run: Run, workspace: str) -> dict[str, float]:
    product, times, used = run.product, [], 0.0
    pids = product.pids("web", "postgres")
    for _ in range(_ONCE):
        before, began = cpu_s(pids), perf_counter()
        deletion = begin(product, workspace)
        times.append(perf_counter() - began)
        used += cpu_s(pids) - before
        product.ann.call("POST", f"{DELETIONS}/{deletion}/restore", {})
    return {"wall_ms": median(times) * 1000, "cpu_ms": used / _ONCE * 1000}


PART = Part("answers", (*_TIMES.values(), *_CPU.values()), _measure, usual_s=45)
