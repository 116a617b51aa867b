"""Lists of a large workspace beside those of a small one: CPU of all server processes, and time until the answer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from statistics import median
from time import monotonic
from urllib.parse import quote

from bench import NotMeasured
from bench.client import exchange
from bench.contents import TYPE, WORKSPACES
from bench.figures import Figure, Goal, Row
from bench.run import Part, Run, alternate
from bench.usage import cpu_s

SMALL, LARGE = "small", "large"
_ROUND_S = 0.5
"""How long the requests of one round may take together."""
_EACH_S = 7


@dataclass(frozen=True)
class _List:
    """A list, asked for by what depends on the number of entities."""

    name: str
    parameters: Callable[[int], str]
    goal: float | None = None

    @property
    def rows(self) -> tuple[Row, Row]:
        goals = (Goal(self.goal),) if self.goal else ()
        return (
            Row(f"large workspace, {self.name}: CPU", "ms", "small workspace", goals),
            Row(f"large workspace, {self.name}: time", "ms", "small workspace"),
        )

    def path(self, workspace: str, entities: int) -> str:
        where = "-" if self.name.startswith("all workspaces") else workspace
        return f"{WORKSPACES}/{where}/entities/{TYPE}?{self.parameters(entities)}"


def _filter(text: str) -> str:
    return f"filter={quote(text)}"


_LISTS = (
    _List("page 1", lambda _: "", goal=3),
    _List("page 1 by name", lambda _: "sort=name"),
    _List("page 1 by time of change", lambda _: "sort=-updated_at"),
    _List("page in the middle", lambda n: f"page={max(1, n // 200)}"),
    _List("filter by name", lambda n: _filter(f'name:"d-{n // 2}"'), goal=3),
    _List("filter by part of a name", lambda n: _filter(f'name~"d-{n // 2}"')),
    _List("filter by a value in data", lambda n: _filter(f"data.serial:{n // 2}"), goal=3),
    _List("filter by a range of times", lambda _: _filter('created_at<"2024-01-01T00:00:00.02Z"')),
    _List("filter by a range in data", lambda n: _filter(f"data.serial>{n - 10}")),
    _List("page 1 by a value in data", lambda _: "sort=data.score"),
    _List("count by a value in data", lambda _: "count_by=data.owner&page_size=1"),
    _List("filter by a frequent value in data", lambda _: _filter('data.owner:"o-7"')),
)


def _measure(run: Run) -> Iterator[Figure]:
    run.filled(SMALL, run.scale.few)
    run.filled(LARGE, run.scale.entities)
    for one in _LISTS:
        run.check_time()
        try:
            found = alternate(
                run,
                {
                    "small": partial(_costs, run, one.path(SMALL, run.scale.few)),
                    "large": partial(_costs, run, one.path(LARGE, run.scale.entities)),
                },
                within_s=_EACH_S,
            )
        except NotMeasured as error:
            yield from (Figure(row, missing=str(error)) for row in one.rows)
            continue
        for row, kind in zip(one.rows, ("cpu_ms", "wall_ms"), strict=True):
            yield Figure(row, found["large"][kind], found["small"][kind])


def _costs(run: Run, path: str) -> dict[str, float]:
    product = run.product
    pids = product.pids("web", "postgres")
    before = cpu_s(pids)
    request = product.ann.encode("GET", path)
    answers = exchange(product.port, repeat(request, run.scale.requests), until=monotonic() + _ROUND_S)
    used = cpu_s(pids) - before
    return {
        "cpu_ms": used / len(answers) * 1000,
        "wall_ms": median(answer.took_s for answer in answers) * 1000,
    }


PART = Part("lists", tuple(row for one in _LISTS for row in one.rows), _measure, usual_s=170)
