"""Spans by the SDK of OpenTelemetry, whose variables (`OTEL_…`) say which of them are sent, and how."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bound_contextvars

from app.tracing import ERROR, Facts
from app.version import VERSION

_LAST_S = 1.0
"""How long the end of a process may take for the spans that it has not sent."""

_SPEAKERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")
"""Loggers that speak of spans that are lost."""

_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """The spans of this process, and the thread that sends them out of a queue, which drops what is too much."""

    def __init__(self, url: str) -> None:
        self._processor = BatchSpanProcessor(_Exporter(url))
        # Its own end would wait for the collector.
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("workspaces", VERSION)

    @contextmanager
    def span(self, name: str, kind: str, traceparent: str | None) -> Iterator[Facts]:
        """See `app.tracing.span`."""
        parent = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
        facts: Facts = {}
        with self._tracer.start_as_current_span(
            name, parent, SpanKind[kind.upper()], record_exception=False, set_status_on_exception=False
        ) as span:
            trace_id = f"{span.get_span_context().trace_id:032x}"
            try:
                with bound_contextvars(trace_id=trace_id):
                    yield facts
            except BaseException as error:
                facts[ERROR] = type(error).__name__
                raise
            finally:
                span.set_attributes(facts)
                if ERROR in facts:
                    span.set_status(StatusCode.ERROR)

    def traceparent(self) -> str | None:
        """See `app.tracing.current_traceparent`."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get("traceparent")

    def stop(self) -> None:
        """Send what has ended, within `_LAST_S`."""
        # In a thread: the processor waits for half a minute, and then for its exporter.
        end = Thread(target=self._processor.shutdown, name="last spans", daemon=True)
        end.start()
        end.join(_LAST_S)


class _Exporter(OTLPSpanExporter):
    """The exporter, which speaks of each outage once."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._outage = _OncePerOutage()
        for name in _SPEAKERS:
            logging.getLogger(name).addFilter(self._outage)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """OpenTelemetry's."""
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            self._outage.has_been_told = False
        return result

    def shutdown(self) -> None:
        """OpenTelemetry's."""
        super().shutdown()  # type: ignore[no-untyped-call]  # OpenTelemetry's
        for name in _SPEAKERS:
            logging.getLogger(name).removeFilter(self._outage)


class _OncePerOutage(logging.Filter):
    """Lets the first line through, as a WARNING: by themselves they would be several for each batch."""

    has_been_told = False

    def filter(self, record: logging.LogRecord) -> bool:
        if self.has_been_told or record.levelno < logging.WARNING:
            return False
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        self.has_been_told = True
        return True


def _resource() -> Resource:
    ours = {
        "service.name": "workspaces",
        "service.version": VERSION,
        "service.instance.id": f"{socket.gethostname()}/{os.getpid()}",
    }
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word.
    return Resource(ours).merge(OTELResourceDetector().detect())
