"""Measures every request, by its route and the status of its answer."""

from functools import cache
from http import HTTPStatus
from time import perf_counter
from typing import Any

from flask import Flask, Response, request
from prometheus_client import Histogram

from app.health.metrics.requests import measures

_NO_ROUTE = "none"


class MeasuredFlask(Flask):
    """An application that counts each request while it is in progress, and how long it took.

    Not by hooks of Flask, which cost several times what counting does.
    """

    def full_dispatch_request(self, *context: Any) -> Response:
        """Flask's: from the first hook to the last, errors included."""
        began_at, in_progress = perf_counter(), measures().in_progress
        code: int = HTTPStatus.INTERNAL_SERVER_ERROR
        in_progress.inc()
        try:
            response = super().full_dispatch_request(*context)
            code = response.status_code
            return response
        finally:
            in_progress.dec()
            _durations_of_request(code).observe(perf_counter() - began_at)


def _durations_of_request(code: int) -> Histogram:
    if rule := request.url_rule:
        return _durations(request.method, rule.rule, code)
    # Whatever a client sends where no route is must not make a series of its own.
    return _durations("", _NO_ROUTE, code)


@cache
def _durations(method: str, route: str, code: int) -> Histogram:
    """Looked up once: the labels take longer than to count."""
    return measures().durations.labels(method, route, str(code))
