"""The metrics that are exported, by name."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.config import Settings
from app.health.dependencies import Health
from app.health.metrics.exposition import database_metrics, health_metrics, queue_metric
from app.health.metrics.requests import measures


@dataclass(frozen=True)
class Exported:
    """A metric as operators read it."""

    name: str
    labels: tuple[str, ...]
    text: str
    samples: frozenset[str]
    """The names of its samples, as expressions use them."""


def exported(session: Session, settings: Settings) -> Iterator[Exported]:
    """Every metric, in the order of `/metrics`."""
    families = [*health_metrics(Health()), *database_metrics(session, settings), queue_metric({})]
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = tuple(family._labelnames)  # type: ignore[attr-defined]
        yield Exported(name, labels, family.documentation, _samples(name, family.type))
    for metric in (measures().durations, measures().in_progress):
        name, labels = metric._name, tuple(metric._labelnames)
        yield Exported(name, labels, metric._documentation, _samples(name, metric._type))


def _samples(name: str, kind: str) -> frozenset[str]:
    endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
    return frozenset(f"{name}{ending}" for ending in endings)
