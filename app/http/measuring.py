"""Measures every request, and traces it, by its route and the status of its answer."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from http import HTTPStatus
from time import perf_counter
from typing import Any

from flask import Flask, Response, g, request
from prometheus_client import Histogram

from app.health.metrics.requests import measures
from app.tracing import ERROR, Facts, is_tracing, span

_NO_ROUTE = "none"
_ASKED_BY_MONITORS = ("/health/", "/status", "/metrics")
"""Beginnings of the routes that are asked every few seconds, whether anything happens or not."""


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
            with _span() as facts:
                response = super().full_dispatch_request(*context)
                code = response.status_code
                _describe(facts, code)
            return response
        finally:
            in_progress.dec()
            _durations_of_request(code).observe(perf_counter() - began_at)


def _span() -> AbstractContextManager[Facts]:
    """Of the request, unless no route is its own: its name is that of the route, and never has what was sent."""
    rule = request.url_rule if is_tracing() else None
    if rule is None or rule.rule.startswith(_ASKED_BY_MONITORS):
        return nullcontext({})
    sent = request.headers.get("traceparent")
    return span(f"{request.method} {rule.rule}", "server", traceparent=sent)


def _describe(facts: Facts, code: int) -> None:
    if is_tracing() and (rule := request.url_rule):
        facts["http.request.method"], facts["http.route"] = request.method, rule.rule
        facts["http.response.status_code"] = code
        facts["request_id"] = g.request_id
        if code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            facts[ERROR] = str(code)


def _durations_of_request(code: int) -> Histogram:
    if rule := request.url_rule:
        return _durations(request.method, rule.rule, code)
    # Whatever a client sends where no route is must not make a series of its own.
    return _durations("", _NO_ROUTE, code)


@cache
def _durations(method: str, route: str, code: int) -> Histogram:
    """Looked up once: the labels take longer than to count."""
    return measures().durations.labels(method, route, str(code))
