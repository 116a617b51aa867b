"""A PostgreSQL of an older release, as far as it greets its clients."""

import socketserver
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.serving import serving

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104
_VERSION = b"server_version\x0014.9\x00"
_GREETING = (
    b"R" + struct.pack("!ii", 8, 0)  # needs no password
    + b"S" + struct.pack("!i", 4 + len(_VERSION)) + _VERSION
    + b"Z" + struct.pack("!i", 5) + b"I"
)  # fmt: skip


class _Greeting(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while header := self.rfile.read(8):
            length, code = struct.unpack("!ii", header)
            self.rfile.read(length - 8)
            if code not in {_SSL_REQUEST, _GSS_REQUEST}:
                break
            self.wfile.write(b"N")
        self.wfile.write(_GREETING)
        self.rfile.read()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextmanager
def old_postgres() -> Iterator[str]:
    """The URL of one that says it is PostgreSQL 14.9, and never answers a statement."""
    server = _Server(("127.0.0.1", 0), _Greeting)
    with serving(server):
        yield f"postgresql+psycopg://app@127.0.0.1:{server.server_address[1]}/workspaces"
