"""Answers per second, by the number of clients that wait for one."""

from collections.abc import Iterator
from functools import partial
from itertools import repeat
from time import monotonic

from bench.bare import PATH as BARE
from bench.client import exchange
from bench.contents import WORKSPACES, make_workspaces
from bench.figures import Figure, Row
from bench.run import Part, Run, alternate

_CLIENTS = (1, 8, 32)
_ROWS = {
    number: Row(
        f"get a workspace, {number} clients" if number > 1 else "get a workspace, 1 client",
        "/s",
        "bare endpoint",
    )
    for number in _CLIENTS
}


def _measure(run: Run) -> Iterator[Figure]:
    make_workspaces(run.product, ["throughput"])
    for number, row in _ROWS.items():
        found = alternate(
            run,
            {
                "ours": partial(_per_second, run, f"{WORKSPACES}/throughput", number),
                "bare": partial(_per_second, run, BARE, number),
            },
        )
        yield Figure(row, found["ours"]["per_s"], found["bare"]["per_s"])


def _per_second(run: Run, path: str, clients: int) -> dict[str, float]:
    request = run.product.ann.encode("GET", path)
    began = monotonic()
    answers = exchange(
        run.product.port, repeat(request), clients=clients, until=began + run.scale.seconds / run.scale.rounds
    )
    return {"per_s": len(answers) / (monotonic() - began)}


PART = Part("throughput", tuple(_ROWS.values()), _measure, usual_s=30)
