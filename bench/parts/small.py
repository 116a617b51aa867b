"""Many small workspaces at once, each with one member and nothing else, by two worker processes."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from statistics import mean
from time import monotonic
from uuid import UUID

from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Advanced, Finished
from app.dispatch import Message
from bench import NotMeasured, OutOfTime
from bench.client import exchange
from bench.contents import WORKSPACES, make_workspaces
from bench.deleting import ALL
from bench.figures import Figure, Goal, Row
from bench.product import Product
from bench.run import Part, Run
from bench.statements import Recording, recorded

_ROW = Row(
    "small workspaces deleted per second",
    "/s",
    "the same statements through one psycopg connection",
    (Goal(30, is_upper=False, of_value=True), Goal(0.5, is_upper=False)),
)
_SHARE = 0.7
"""How much of the time that is left the worker gets."""


def _measure(run: Run) -> Iterator[Figure]:
    product, number = run.product, run.scale.workspaces
    product.stop(*ALL)
    ours, before, after = (
        [f"{kind}-{one}" for one in range(size)]
        for kind, size in (("many", number), ("before", number // 3), ("after", number // 3))
    )
    make_workspaces(product, [*ours, *before, *after])
    plain = [_plain_per_second(run, before)]
    per_second = _per_second(run, ours)
    plain.append(_plain_per_second(run, after))
    yield Figure(_ROW, per_second, mean(plain))


def _per_second(run: Run, names: list[str]) -> float:
    """Everything is asked for before the worker starts, so that it alone is measured."""
    product = run.product
    _delete_all(product, names)
    product.start(*ALL)
    until = monotonic() + (run.deadline - monotonic()) * _SHARE
    with suppress(OutOfTime):  # those that are done tell the rate as well
        product.wait_until(lambda: _done(product, names)[0] == len(names), until=until, poll_s=0.2)
    product.stop(*ALL)  # the sweep, too, locks what is due
    number, seconds = _done(product, names)
    if not number:
        raise OutOfTime
    return number / seconds


def _delete_all(product: Product, names: list[str]) -> None:
    requests = [product.ann.encode("DELETE", f"{WORKSPACES}/{name}") for name in names]
    exchange(product.port, requests, clients=4)


def _done(product: Product, names: list[str]) -> tuple[int, float]:
    """How many deletions are DONE, and the seconds from the first slice until the last of these."""
    ((number, seconds),) = product.query(
        "SELECT count(*), extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM deletions "
        "WHERE state = 'DONE' AND workspace_name = ANY(%s)",
        names,
    )
    return number, seconds or 0.0


def _plain_per_second(run: Run, names: list[str]) -> float:
    """The statements of one deletion, recorded in this process, for all others."""
    product = run.product
    _delete_all(product, names)
    usual, first, *others = product.query(
        "SELECT id, workspace_id FROM deletions WHERE workspace_name = ANY(%s)", names
    )
    _record(run, usual[0])  # the first deletion of all meets an empty history
    recording = _record(run, first[0])
    with product.connect(autocommit=False) as connection:
        began = monotonic()
        for other in others:
            recording.repeat_for_another(connection, dict(zip(first, other, strict=True)))
        return len(others) / (monotonic() - began)


class _Nobody:
    """A publisher whose messages nobody gets."""

    def publish(self, message: Message) -> None:
        """Drop it."""

    def ping(self) -> None:
        """Answer."""

    def is_empty(self, queue: str) -> bool:  # noqa: ARG002 -- a publisher's
        """Whether nothing waits."""
        return True

    def lengths(self) -> dict[str, int]:
        """How many wait."""
        return {}


def _record(run: Run, deletion: UUID) -> Recording:
    context = replace(run.product.context, publisher=_Nobody())
    with recorded(context.sessions.kw["bind"]) as recording:
        while isinstance(outcome := run_slice(context, deletion, owner="bench"), Advanced):
            run.check_time()
    if not isinstance(outcome, Finished):
        raise NotMeasured(f"a deletion in this process did not end: {outcome}")
    return recording


PART = Part("small", (_ROW,), _measure, usual_s=60)
