"""A workspace with very many rows: how fast they go, what becomes of others meanwhile, and what memory it takes."""

from collections.abc import Iterator
from itertools import count
from statistics import median
from time import monotonic
from uuid import UUID

from app.config import Settings
from bench.contents import make_ten_resources
from bench.deleting import ALL, begin, is_done, seconds_of_work, seconds_to_done, wait_until_done
from bench.figures import Figure, Goal, Row
from bench.parts.lists import LARGE
from bench.parts.memory import MEDIUM, medium
from bench.run import Part, Run
from bench.usage import peak_mib

_RATE = Row(
    "rows deleted per second, large workspace",
    "/s",
    "plain chunks on the same table",
    (Goal(0.7, is_upper=False),),
)
_FAIR = Row(
    "small workspace deleted meanwhile, p50", "s", "while nothing else is deleted", (Goal(3, of_value=True),)
)
_MEMORY = Row(
    "memory of a worker process, large workspace deleted",
    "MiB",
    "one of 10,000 entities deleted",
    (Goal(1.2),),
)
_PLAIN_SHARE = 5
"""The plain deletion has a fifth of the large workspace's rows, half of them before it and half of them after."""
_ALONE = 5


def _measure(run: Run) -> Iterator[Figure]:
    product, scale = run.product, run.scale
    run.filled(MEDIUM, medium(run))
    run.filled(LARGE, scale.entities)
    plain = run.filled("plain", scale.entities // _PLAIN_SHARE)
    product.stop("worker")
    product.start(*ALL)
    names = (f"fair-{number}" for number in count())
    alone = median(_small_one(run, next(names)) for _ in range(_ALONE))
    wait_until_done(product, begin(product, MEDIUM), until=run.deadline)
    before_mib = peak_mib(product.pids("worker"))
    rates = [_plain_rate(run, plain, scale.entities // _PLAIN_SHARE // 2)]
    deletion = begin(product, LARGE)
    meanwhile = []
    while not is_done(product, deletion):
        run.check_time()
        meanwhile.append(_small_one(run, next(names)))
    rates.append(_plain_rate(run, plain, scale.entities // _PLAIN_SHARE // 2))
    yield Figure(_RATE, scale.entities / seconds_of_work(product, deletion), median(rates))
    yield Figure(_FAIR, median(meanwhile), alone)
    yield Figure(_MEMORY, peak_mib(product.pids("worker")), before_mib)


def _small_one(run: Run, name: str) -> float:
    make_ten_resources(run.product, name)
    return seconds_to_done(run.product, name, until=run.deadline)


def _plain_rate(run: Run, workspace: UUID, number: int) -> float:
    """Rows per second of a statement that deletes the youngest chunk, committed each time."""
    size, left = Settings().chunk_size, number
    began = monotonic()
    with run.product.connect() as connection:
        last = UUID(int=2**128 - 1)
        while left > 0:
            run.check_time()
            deleted = connection.execute(
                "DELETE FROM entities WHERE id IN (SELECT id FROM entities WHERE workspace_id = %s AND id < %s "
                "ORDER BY id DESC LIMIT %s) RETURNING id",
                [workspace, last, min(size, left)],
            ).fetchall()
            last = min(id_ for (id_,) in deleted)
            left -= len(deleted)
    return number / (monotonic() - began)


PART = Part("rows", (_RATE, _FAIR, _MEMORY), _measure, usual_s=100)
