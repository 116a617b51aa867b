"""All metrics: of what the product depends on always, of the cascade while the database answers.

The database is the truth: no process keeps counts of what is in it, and every API process answers the same.
"""

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric
from sqlalchemy.orm import Session

from app.config import Settings
from app.context import Context
from app.db import read_scope
from app.health.asking import ask
from app.health.dependencies import WITHIN_S, Health, check_health
from app.health.metrics.counters import counter_metrics
from app.health.metrics.deletions import deletion_metrics
from app.health.metrics.families import gauge, text_of
from app.health.metrics.maintenance import maintenance_metrics
from app.health.metrics.notifications import notification_metrics
from app.health.metrics.requests import request_metrics
from app.health.metrics.runtime import runtime_metrics
from app.logs import explain, get_logger
from app.version import VERSION

log = get_logger(__name__)


def exposition(context: Context) -> bytes:
    """All metrics in the text format of Prometheus. Takes seconds at most, and raises nothing.

    Without the database those that are read from it are missing, and without the broker those of its queues.
    """
    health = check_health(context)
    texts = [text_of(health_metrics(health))]
    checks = {"metrics of requests": lambda: text_of(request_metrics())}
    if health.serves:
        checks["metrics of the database"] = lambda: _read(context)
    if "broker" in health.ready:
        checks["metrics of the broker"] = lambda: text_of([queue_metric(context.publisher.lengths())])
    for name, found in ask(checks, of=context, within_s=WITHIN_S).items():
        if isinstance(found, Exception):
            log.warning("metrics.not_read", which=name, error=explain(found))
        else:
            texts.append(found)
    return b"".join(texts)


def database_metrics(session: Session, settings: Settings) -> Iterator[Metric]:
    """Those that are read from the database, with a number of statements that does not grow."""
    yield from deletion_metrics(session)
    yield from counter_metrics(session)
    yield from maintenance_metrics(session)
    yield from notification_metrics(session)
    yield from runtime_metrics(session, settings)


def queue_metric(lengths: Mapping[str, int]) -> Metric:
    """The messages that wait in the broker, by queue."""
    return gauge(
        "workspaces_queue_messages",
        "Messages that wait in a queue of the broker. Those that a worker has taken do not count.",
        {(queue,): number for queue, number in lengths.items()},
        labels=["queue"],
    )


def health_metrics(health: Health) -> Iterator[Metric]:
    """The release, and what is ready."""
    yield gauge("workspaces_build_info", "The release that answers.", {(VERSION,): 1}, labels=["version"])
    is_ready = dict.fromkeys(health.ready, 1.0) | {fault.name: 0.0 for fault in health.faults}
    yield gauge(
        "workspaces_up",
        "1 if a dependency or a kind of process is ready, as in `/status`.",
        {(name,): number for name, number in is_ready.items()},
        labels=["dependency"],
    )


def _read(context: Context) -> bytes:
    with read_scope(context.sessions) as session:
        return text_of(database_metrics(session, context.settings))
