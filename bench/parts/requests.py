"""What one request costs: CPU of all server processes, and the time until its answer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from itertools import count, islice
from statistics import median
from time import perf_counter, thread_time
from typing import Any
from uuid import UUID

import app
from app.errors import Busy
from bench import NotMeasured
from bench.bare import PATH as BARE
from bench.client import Caller, exchange
from bench.contents import TYPE, WORKSPACES, fill, make_workspaces
from bench.figures import Figure, Goal, Row
from bench.product import Product
from bench.run import Part, Run, alternate
from bench.statements import Recording, recorded
from bench.usage import cpu_s

_TEAM = "team-0"
_ENTITIES = f"{WORKSPACES}/{_TEAM}/entities/{TYPE}"
_LISTED = 310
"""Entities of which a hundred are listed."""
_ALL_S, _SQL_S = 60, 4
"""How long the rounds of all requests may take, and those of the SQL of one."""


@dataclass(frozen=True)
class _Request:
    """A request, made anew with each number."""

    name: str
    method: str
    path: str
    body: Callable[[int], Any] = lambda _: None
    goal: float | None = None

    @property
    def rows(self) -> tuple[Row, Row, Row, Row]:
        """Its CPU and time beside the bare endpoint's, and beside those of its SQL."""
        goals = (Goal(self.goal),) if self.goal else ()
        return (
            Row(f"{self.name}: CPU", "ms", "bare endpoint", goals),
            Row(f"{self.name}: time", "ms", "bare endpoint"),
            Row(f"{self.name}: CPU beside its SQL", "ms", "psycopg"),
            Row(f"{self.name}: time beside its SQL", "ms", "psycopg"),
        )

    def encode(self, caller: Caller, number: int) -> bytes:
        return caller.encode(self.method, self.path, self.body(number))


_REQUESTS = (
    _Request("get a workspace", "GET", f"{WORKSPACES}/{_TEAM}", goal=2.5),
    _Request("create a workspace", "POST", WORKSPACES, lambda n: {"name": f"new-{n}"}, 5),
    _Request("update a workspace", "PUT", f"{WORKSPACES}/team-1", lambda n: {"description": f"d {n}"}, 4.5),
    _Request("list 100 workspaces", "GET", f"{WORKSPACES}?page_size=100", goal=5),
    _Request("get an entity", "GET", f"{_ENTITIES}/d-5"),
    _Request("create an entity", "POST", _ENTITIES, lambda n: {"name": f"new-{n}", "data": {"n": n}}, 5),
    _Request("update an entity", "PUT", f"{_ENTITIES}/d-7", lambda n: {"data": {"n": n}}, 4.5),
    _Request("list 100 of 310 entities", "GET", f"{_ENTITIES}?page_size=100", goal=5),
)


def _measure(run: Run) -> Iterator[Figure]:
    product, numbers = run.product, count()
    make_workspaces(product, [f"team-{number}" for number in range(2)])
    make_workspaces(product, [f"listed-{number}" for number in range(118)])
    # Not analysed, as in the first minute of any workspace.
    team = UUID(product.ann.call("GET", f"{WORKSPACES}/{_TEAM}")["id"])
    fill(product, team, _LISTED)
    bare = _Request("bare", "GET", BARE)
    costs = {one.name: partial(_costs, run, one, numbers) for one in (bare, *_REQUESTS)}
    for thing in costs.values():  # each program and statement has been used before it counts
        thing()
    found = alternate(run, costs, within_s=_ALL_S)
    for one in _REQUESTS:
        for row, kind in zip(one.rows, ("cpu_ms", "wall_ms"), strict=False):
            yield Figure(row, found[one.name][kind], found["bare"][kind])
    for one in _REQUESTS:
        yield from _beside_sql(run, one, numbers, found[one.name])


def _costs(run: Run, one: _Request, numbers: Iterator[int]) -> dict[str, float]:
    """CPU and median time of a request, over one round."""
    product = run.product
    requests = [one.encode(product.ann, number) for number in islice(numbers, run.scale.requests)]
    pids = product.pids("web", "postgres")
    before = cpu_s(pids)
    answers = exchange(product.port, requests)
    used = cpu_s(pids) - before
    return {
        "cpu_ms": used / len(answers) * 1000,
        "wall_ms": median(answer.took_s for answer in answers) * 1000,
    }


def _beside_sql(run: Run, one: _Request, numbers: Iterator[int], found: dict[str, float]) -> Iterator[Figure]:
    """The same beside the statements that it sends, each transaction rolled back."""
    cpu, wall = one.rows[2:]
    try:
        recording = _record(run.product, one, next(numbers))
        alone = alternate(run, {"sql": partial(_repeat, run, recording)}, within_s=_SQL_S)["sql"]
    except NotMeasured as error:
        yield from (Figure(row, missing=str(error)) for row in (cpu, wall))
    else:
        yield Figure(cpu, found["cpu_ms"], alone["cpu_ms"])
        yield Figure(wall, found["wall_ms"], alone["wall_ms"])


def _record(product: Product, one: _Request, number: int) -> Recording:
    context = product.context
    client = app.create_app(context).test_client()
    headers = dict(line.split(": ") for line in product.ann.headers.splitlines())
    undo = one.method != "GET"
    with recorded(context.sessions.kw["bind"], undo=undo) as recording:
        answer = client.open(one.path, method=one.method, json=one.body(number), headers=headers)
    if answer.status_code != (Busy.status if undo else HTTPStatus.OK):
        raise NotMeasured(f"the answer is {answer.status}: {answer.text[:200]}")
    return recording


def _repeat(run: Run, recording: Recording) -> dict[str, float]:
    times, product = [], run.product
    with product.connect() as connection:
        for _ in range(10):  # until they are prepared
            recording.repeat(connection)
        pids = product.pids("postgres")
        before, ours = cpu_s(pids), thread_time()
        for _ in range(run.scale.requests):
            began = perf_counter()
            recording.repeat(connection)
            times.append(perf_counter() - began)
        used = cpu_s(pids) - before + thread_time() - ours
    return {"cpu_ms": used / len(times) * 1000, "wall_ms": median(times) * 1000}


PART = Part("requests", tuple(row for one in _REQUESTS for row in one.rows), _measure, usual_s=100)
