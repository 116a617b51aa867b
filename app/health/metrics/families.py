"""Metrics as they are exported: each is made anew for a scrape, with the samples that there are just then."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Samples = Mapping[tuple[str, ...], float]
"""Values by those of the labels."""


def gauge(name: str, text: str, samples: Samples, *, labels: Iterable[str] = ()) -> Metric:
    """What goes up and down. `text` says what it is; docs/deploying.md has it, too."""
    family = GaugeMetricFamily(name, text, labels=list(labels))
    for values, number in samples.items():
        family.add_metric(values, number)
    return family


def counter(name: str, text: str, samples: Samples, *, labels: Iterable[str] = ()) -> Metric:
    """What only grows. The exported name ends with `_total`."""
    family = CounterMetricFamily(name, text, labels=list(labels))
    for values, number in samples.items():
        family.add_metric(values, number)
    return family


def text_of(families: Iterable[Metric]) -> bytes:
    """Metrics in the text format of Prometheus."""
    return generate_latest(_Collected(families))


@dataclass(frozen=True)
class _Collected:
    families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client asks of a registry."""
        return self.families
