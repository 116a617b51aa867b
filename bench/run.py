"""One run of the bench: its sizes, its time, and the product that its parts share."""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, cached_property
from math import inf
from pathlib import Path
from statistics import median
from uuid import UUID

import psycopg

from bench import NotMeasured, OutOfTime
from bench.contents import fill, make_workspace
from bench.figures import Figure, Row
from bench.product import Product


@dataclass(frozen=True)
class Scale:
    """How much is measured. Names of rows say `large` for `entities` and `small` for `few`."""

    entities: int = 1_000_000
    some: int = 100_000
    """Entities in the workspace whose DELETE is compared with that of an empty one; failures of a deletion."""
    few: int = 1_000
    workspaces: int = 240
    """Small ones that are deleted at once."""
    rounds: int = 7
    requests: int = 60
    """Requests in one round of one row."""
    seconds: float = 4.0
    """How long clients call for one throughput."""
    filesets: int = 240
    total_s: float = 14 * 60
    """The most that all parts together may take."""


SCALES = {
    "usual": Scale(),
    "full": Scale(entities=10_000_000, total_s=6 * 3600),
    # For tests: beside others a part takes several times as long.
    "tiny": Scale(
        entities=3_000,
        some=500,
        few=300,
        workspaces=12,
        rounds=2,
        requests=3,
        seconds=0.2,
        filesets=4,
        total_s=45 * 60,
    ),
}


@dataclass(frozen=True)
class Part:
    """A part of the bench, which runs by itself: `make bench ONLY=name`."""

    name: str
    rows: tuple[Row, ...]
    measure: Callable[["Run"], Iterator[Figure]]
    """Yields its rows as they are measured. Raises OutOfTime, or NotMeasured for all that are left."""
    usual_s: float
    """How long it takes about, on two cores with nothing else to do: its share of the time that is left."""


class Run:
    """What the parts measure with. Use it as `with`: nothing of it is left afterwards."""

    def __init__(self, scale: Scale, directory: Path) -> None:
        self.scale = scale
        self._directory, self._owned = directory, ExitStack()
        self._ends_at = time.monotonic() + scale.total_s
        self.deadline = self._ends_at
        """The end of the part that is measured, a time of `monotonic()`."""
        self.filled = cache(self._fill)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._owned.close()

    @cached_property
    def product(self) -> Product:
        """The product that most parts share: its servers, and web."""
        return self.another_product("product")

    def another_product(self, name: str, **settings: str) -> Product:
        """A product of a part's own, which ends with the run. Raises OutOfTime."""
        self.check_time()
        return self._owned.enter_context(Product(self._directory / name, **settings))

    def directory(self, name: str) -> Path:
        """A directory that ends with the run."""
        path = self._directory / name
        path.mkdir()
        return path

    def _fill(self, name: str, number: int) -> UUID:
        """The workspace of that name, with so many entities. Analysed, as PostgreSQL does by itself within a minute."""
        self.check_time()
        workspace = make_workspace(self.product, name)
        limit_ms = max(1, int((self.deadline - time.monotonic()) * 1000))
        self.product.query(f"SET statement_timeout = {limit_ms}")
        try:
            fill(self.product, workspace, number)
            self.product.query("VACUUM (ANALYZE) entities")
        except psycopg.errors.QueryCanceled:
            raise OutOfTime from None
        finally:
            self.product.query("SET statement_timeout = 0")
        return workspace

    def check_time(self) -> None:
        """Raise OutOfTime if the part has used up its time."""
        if time.monotonic() > self.deadline:
            raise OutOfTime

    def measure(self, *parts: Part) -> Iterator[Figure]:
        """The figures of parts, each in the order of its rows; those that could not be had say why.

        The time that a part leaves is for those behind it, and none can take theirs.
        """
        for number, part in enumerate(parts):
            left_s = self._ends_at - time.monotonic()
            share = part.usual_s / sum(one.usual_s for one in parts[number:])
            yield from self._measure(part, within_s=max(0.0, left_s * share))

    def _measure(self, part: Part, *, within_s: float) -> Iterator[Figure]:
        began = time.monotonic()
        self.deadline = began + within_s
        found: dict[str, Figure] = {}
        why = "it has no result"
        try:
            for figure in part.measure(self):
                found[figure.row.name] = figure
                tell(
                    f"{part.name}: {figure.row.name}: {figure.value} (baseline {figure.baseline}) {figure.missing}"
                )
        except OutOfTime:
            why = f"not within the {within_s:.0f} s of its part"
        except NotMeasured as error:
            why = " ".join(str(error).split())
        except Exception as error:  # noqa: BLE001 -- the other parts are measured all the same
            traceback.print_exc()
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
        tell(f"{part.name}: {time.monotonic() - began:.0f} s of {within_s:.0f} s")
        if missing := [row.name for row in part.rows if row.name not in found]:
            tell(f"{part.name}: {len(missing)} rows not measured: {why}")
        for row in part.rows:
            yield found.get(row.name) or Figure(row, missing=why)


def tell(line: str) -> None:
    """Say how far the run is."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")


def alternate(
    run: Run, things: Mapping[str, Callable[[], dict[str, float]]], *, within_s: float = inf
) -> dict[str, dict[str, float]]:
    """The medians of what `things` measure, in rounds in which each has its turn.

    There are fewer rounds, but one at least, if all of them would take longer. Raises OutOfTime if not even that one
    is possible in the time of the part.
    """
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in things}
    until = min(run.deadline, time.monotonic() + within_s)
    for number in range(run.scale.rounds):
        if number and time.monotonic() > until:
            break
        run.check_time()
        round_of_all = {name: thing() for name, thing in things.items()}
        for name, one in round_of_all.items():
            measured[name].append(one)
    return {
        name: {kind: median(one[kind] for one in found) for kind in found[0]}
        for name, found in measured.items()
    }
