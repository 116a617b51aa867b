"""A proxy in front of an S3 server that fails on demand."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

from devstack.processes import HOST
from tests.support.serving import serving

_UPSTREAM_TIMEOUT_S = 60


@dataclass(frozen=True)
class Fault:
    """The fate of a request: answered without forwarding, delayed, or its answer truncated or changed."""

    status: int = 0
    code: str = ""
    message: str = "as the test wants it"
    answer: str = ""
    """The whole body of the answer, instead of one made of `code` and `message`."""
    delay_s: float = 0
    truncate: bool = False
    rewrite: Callable[[bytes], bytes] | None = None

    @property
    def body(self) -> bytes:
        body = f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>"
        return (self.answer or body).encode()


FORBIDDEN = Fault(403, "InvalidAccessKeyId", "The Access Key Id you provided does not exist in our records.")
SLOW_DOWN = Fault(503, "SlowDown", "Please reduce your request rate.")
TRUNCATED = Fault(truncate=True)
HANGING = Fault(delay_s=60)

Choice = Callable[[str, str], Fault | None]
"""The fault, if any, for a method and a target."""


@dataclass
class Proxy:
    """Forwards every request, unless `choose` returns a fault for it."""

    endpoint: str
    choose: Choice = lambda method, target: None
    requests: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def fail(self, fault: Fault | None, *, only: str = "") -> None:
        """From now on every request meets the fault; or those whose method and target contain `only`."""
        self.choose = lambda method, target: fault if only in f"{method} {target}" else None


@contextmanager
def proxying(upstream: str) -> Iterator[Proxy]:
    """A proxy in front of `upstream`, for the block."""

    class Handler(_Handler):
        address = urlsplit(upstream).netloc

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    proxy = Handler.proxy = Proxy(f"http://{HOST}:{server.server_port}")
    with serving(server):
        try:
            yield proxy
        finally:
            proxy.released.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[Proxy]
    address: ClassVar[str]

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.proxy.requests.append(f"{self.command} {self.path}")
        fault = self.proxy.choose(self.command, self.path) or Fault()
        if fault.delay_s:
            self.proxy.released.wait(fault.delay_s)
        if fault.status:
            self._answer(fault.status, {"Content-Type": "application/xml"}, fault.body)
            return
        upstream = http.client.HTTPConnection(self.address, timeout=_UPSTREAM_TIMEOUT_S)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN}
        if self.command == "HEAD":
            headers["Content-Length"] = answer.headers.get("Content-Length", "0")
        if fault.rewrite:
            content = fault.rewrite(content)
        self._answer(answer.status, headers, content, cut=fault.truncate)

    def _answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
        if status == 204:
            content = b""  # it has none; the client would take it for the start of the next answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content) + cut))  # one byte more than will come
        elif "Content-Length" not in headers:
            self.send_header("Content-Length", "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 -- the names that http.server calls

    def handle(self) -> None:
        with suppress(OSError):  # The client has gone.
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name in http.server
        pass


_OWN = {"content-length", "transfer-encoding", "connection", "date", "server"}
