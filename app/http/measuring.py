"""Measures every request, by its route and the status of its answer."""

from functools import cache
from time import perf_counter

from flask import Flask, Response, g, request
from prometheus_client import Histogram

from app.health.metrics.requests import measures

_NO_ROUTE = "none"


def measure_requests(app: Flask) -> None:
    """Count each request of `app` while it is in progress, and how long it took. To be called before other hooks."""
    in_progress = measures().in_progress

    @app.before_request
    def begin() -> None:
        g.began_at = perf_counter()
        in_progress.inc()

    @app.after_request
    def note(response: Response) -> Response:
        rule = request.url_rule
        measured = (
            _durations(request.method, rule.rule, response.status_code)
            if rule
            # Whatever a client sends where no route is must not make a series of its own.
            else _durations("", _NO_ROUTE, response.status_code)
        )
        measured.observe(perf_counter() - g.began_at)
        return response

    @app.teardown_request
    def end(_: BaseException | None) -> None:
        if "began_at" in g:
            in_progress.dec()


@cache
def _durations(method: str, route: str, code: int) -> Histogram:
    """Looked up once: the labels take longer than to count."""
    return measures().durations.labels(method, route, str(code))
