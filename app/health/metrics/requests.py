"""Requests: how long they took, and how many are in progress, in all processes of the server."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

SHARED_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which the processes of a server know where each of them keeps its numbers."""

_BUCKETS_S = (0.01, 0.05, 0.25, 1, 5)


@dataclass(frozen=True)
class RequestMetrics:
    """What this process counts."""

    durations: Histogram
    in_progress: Gauge
    registry: CollectorRegistry


@cache
def measures() -> RequestMetrics:
    """Those of this process. Made when the first is counted: by then a server has said whether they are shared."""
    # A third series for each set of labels, of which nobody asks.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    durations = Histogram(
        "workspaces_http_request_duration_seconds",
        "How long requests took until their answer was made, without the time that a client takes to send and to read.",
        ["method", "route", "code"],
        buckets=_BUCKETS_S,
        registry=registry,
    )
    in_progress = Gauge(
        "workspaces_http_requests_in_progress",
        "Requests that have a thread.",
        registry=registry,
        multiprocess_mode="livesum",
    )
    return RequestMetrics(durations, in_progress, registry)


def request_metrics() -> Iterable[Metric]:
    """Those of all processes of the server, or of this one where none are shared. Raises ValueError without files."""
    if os.environ.get(SHARED_DIRECTORY):
        together: Collector = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        return together.collect()
    return measures().registry.collect()
