"""What has become of deletions since the installation: counted by the database, summed at each scrape."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from sqlalchemy import Integer, column, delete, exists, func, literal, select, table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.health.metrics.families import Samples, counter
from app.models import DeletionCounter
from app.models.resource_count import FOLDED, Counted

OUTCOMES = ("done", "failed", "restored")
BUCKETS = ("1", "5", "15", "60", "300", "1800", "7200", "43200", "+Inf")
"""Upper bounds in seconds, as the trigger has them."""

_FOLDED_AT_ONCE = 10_000

Counts = dict[tuple[str, ...], float]
"""By kind and label."""


def counter_metrics(session: Session) -> Iterator[Metric]:
    """One statement, which reads a row for each connection to the database and each set of labels."""
    counts: dict[str, Counts] = {name: {} for name in Counted}
    kept = DeletionCounter
    sums = select(kept.counted, kept.kind, kept.label, func.sum(kept.value))
    for counted, kind, label, value in session.execute(sums.group_by(kept.counted, kept.kind, kept.label)):
        counts.setdefault(counted, {})[kind, label] = value
    yield counter(
        "workspaces_deletions_finished",
        "Deletions that have ended: `done` or `restored`, and how often one has become `failed`, which may be opened "
        "again.",
        _labelled(counts[Counted.ENDED], OUTCOMES),
        labels=["outcome"],
    )
    yield counter(
        "workspaces_deletion_resources",
        "Resources that are `deleted`, or were `skipped` by an administrator.",
        counts[Counted.RESOURCES],
        labels=["kind", "outcome"],
    )
    yield counter(
        "workspaces_deletion_attempts",
        "Attempts to delete a resource that have failed, or a kind as a whole, by class of the error. Waiting is none.",
        counts[Counted.ATTEMPTS],
        labels=["kind", "error_class"],
    )
    yield counter(
        "workspaces_deletion_worker_lost",
        "Workers that vanished while they worked on a deletion.",
        {(): counts[Counted.WORKER_LOST].get(("", ""), 0)},
    )
    yield _durations(counts[Counted.DURATION], counts[Counted.DURATION_SUM])


def _labelled(counts: Counts, labels: tuple[str, ...]) -> Samples:
    """One sample for each label: a rate needs the zero before the first event."""
    return {(label,): counts.get(("", label), 0) for label in labels}


def _durations(counts: Counts, sums: Counts) -> Metric:
    below = accumulate(counts.get(("", bound), 0) for bound in BUCKETS)
    return HistogramMetricFamily(
        "workspaces_deletion_duration_seconds",
        "How long deletions took that are DONE, from the request or the end of the grace period.",
        buckets=list(zip(BUCKETS, below, strict=True)),
        sum_value=sums.get(("", ""), 0),
    )


def fold_counters(session: Session) -> None:
    """Add the numbers of connections that are gone to those that are folded. Does not commit.

    A connection that is taken for gone by mistake counts on from zero: the sum is the same.
    """
    kept = DeletionCounter
    key = ("backend", "counted", "kind", "label")
    activity = table("pg_stat_activity", column("pid", Integer))
    gone = (
        select(*(getattr(kept, name) for name in key))
        .where(kept.backend != FOLDED, ~exists().where(activity.c.pid == kept.backend))
        .limit(_FOLDED_AT_ONCE)
        .with_for_update(skip_locked=True, of=kept)
        .cte(
            "gone"
        )  # a subquery might be run once per row, and find others each time: those it has deleted are gone
    )
    whose = (kept.counted, kept.kind, kept.label)
    removed = (
        delete(kept)
        .where(*(getattr(kept, name) == gone.c[name] for name in key))
        .returning(*whose, kept.value)
        .cte("removed")
    )
    names = [removed.c[one.name] for one in whose]
    # In one order: two processes that fold at once would wait for each other in a circle.
    sums = select(literal(FOLDED), *names, func.sum(removed.c.value)).group_by(*names).order_by(*names)
    folded = insert(kept).from_select([*key, "value"], sums)
    session.execute(
        folded.on_conflict_do_update(
            index_elements=key,
            set_={"value": kept.value + folded.excluded.value},
        )
    )
