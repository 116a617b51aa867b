"""The memory of web processes, by the size of the workspace that is listed. That of workers is measured with `rows`."""

from collections.abc import Iterator
from itertools import repeat
from time import monotonic

from bench.client import exchange
from bench.contents import TYPE, WORKSPACES
from bench.figures import Figure, Goal, Row
from bench.parts.lists import LARGE
from bench.run import Part, Run
from bench.usage import peak_mib

_ROW = Row("memory of web, large workspace listed", "MiB", "one of 10,000 entities listed", (Goal(1.2),))
MEDIUM = "medium"
_LIST_S = 3.0


def medium(run: Run) -> int:
    """The entities of a workspace of medium size."""
    return min(10_000, run.scale.entities)


def _measure(run: Run) -> Iterator[Figure]:
    run.filled(MEDIUM, medium(run))
    run.filled(LARGE, run.scale.entities)
    run.product.stop("web")
    run.product.start("web")
    before = _peak_after(run, MEDIUM)
    yield Figure(_ROW, _peak_after(run, LARGE), before)


def _peak_after(run: Run, workspace: str) -> float:
    product, request = run.product, run.product.ann.encode
    for parameters in ("page_size=1000", "page=9&page_size=1000", "filter=name:%22d-9%22"):
        path = f"{WORKSPACES}/{workspace}/entities/{TYPE}?{parameters}"
        exchange(
            product.port,
            repeat(request("GET", path), 20 * run.scale.rounds),
            clients=4,
            until=monotonic() + _LIST_S,
        )
    return peak_mib(product.pids("web"))


PART = Part("memory", (_ROW,), _measure, usual_s=30)
