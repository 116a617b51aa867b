"""A collector of traces: it takes them by OTLP over HTTP, as those of operators do."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.deadlines import DEADLINE_S
from tests.support.serving import serving


@dataclass(frozen=True)
class Span:
    """A span as it was sent."""

    name: str
    kind: str
    trace_id: str
    id: str
    parent_id: str
    facts: dict[str, Any]
    is_error: bool
    events: int

    @classmethod
    def of(cls, sent: Sent) -> "Span":
        values = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in sent.attributes}
        return cls(
            name=sent.name,
            kind=Sent.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_"),
            trace_id=sent.trace_id.hex(),
            id=sent.span_id.hex(),
            parent_id=sent.parent_span_id.hex(),
            facts=values,
            is_error=sent.status.code == Status.STATUS_CODE_ERROR,
            events=len(sent.events),
        )


@dataclass
class Collector:
    """What has arrived, and whether anything is answered."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    """The requests, as they were sent."""
    services: set[str] = field(default_factory=set)
    answers: threading.Event = field(default_factory=threading.Event)
    """Cleared, it takes requests and answers none of them."""
    asked: threading.Event = field(default_factory=threading.Event)
    """A request has arrived."""

    _taken: threading.Condition = field(default_factory=threading.Condition)

    def take(self, body: bytes) -> None:
        with self._taken:
            self._read(body)
            self._taken.notify_all()

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Return as soon as `condition()` holds for what has arrived."""
        with self._taken:
            assert self._taken.wait_for(condition, DEADLINE_S), (
                f"{what}: {[span.name for span in self.spans]}"
            )

    def wait_for(self, *names: str) -> list[Span]:
        """A span of each name, once they have arrived."""
        self.wait_until(lambda: {*names} <= {span.name for span in self.spans}, f"spans {names}")
        return [self.one(name) for name in names]

    def _read(self, body: bytes) -> None:
        self.raw.append(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = [one.value.string_value for one in group.resource.attributes if one.key == "service.name"]
            self.services.update(names)
            self.spans += [Span.of(one) for scope in group.scope_spans for one in scope.spans]

    def one(self, name: str) -> Span:
        [found] = [span for span in self.spans if span.name == name]
        return found


@contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector on a free port."""
    collector = Collector()
    collector.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.asked.set()
            collector.answers.wait(DEADLINE_S)
            collector.take(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    with serving(server):
        try:
            yield collector
        finally:
            collector.answers.set()
