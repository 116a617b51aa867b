"""One exchange with a server of an issuer: a protected URL, a bounded answer, one deadline, no redirects."""

import json
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from io import BufferedReader, RawIOBase
from socket import socket
from types import MappingProxyType
from typing import Any
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from app.config import is_protected

TIMEOUT_S = 3.0
_MAX_BYTES = 1024 * 1024

Document = dict[str, Any]


def fetch(
    url: str,
    *,
    form: bytes | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
    timeout_s: float = TIMEOUT_S,
) -> Document:
    """The JSON object that a server of an issuer answers with, to a POST if there is a `form`.

    Raises HTTPError for any status but success, a redirect too; OSError, HTTPException or ValueError for an answer that
    does not come in time, is too long, or is no such object; ValueError for a URL that others could answer for.
    """
    if not is_protected(url):
        raise ValueError(f"{url[:200]} is neither an https URL nor on this host")
    body = bytearray()
    request = Request(url, data=form, headers=dict(headers))  # noqa: S310 -- https, or this host: see above
    with build_opener(_NoRedirects, _Http, _Https).open(request, timeout=timeout_s) as answer:
        while part := answer.read1():
            body += part
            if len(body) > _MAX_BYTES:
                raise ValueError(f"the answer of {url} is too long")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"the answer of {url} is no JSON object")  # noqa: TRY004 -- the answer's type, not ours
    return document


class _NoRedirects(HTTPRedirectHandler):
    """Refuses redirects: trust belongs to the configured URL, not to the target of a redirect."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _BytesInTime(RawIOBase):
    """The bytes of a socket whose time-out bounds all of them together."""

    def __init__(self, sock: socket) -> None:
        self._sock, self._bytes = sock, sock.makefile("rb", buffering=0)
        self._deadline = time.monotonic() + (sock.gettimeout() or 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left_s(self._deadline))
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _Answer(HTTPResponse):
    """An answer whose header and body arrive within the time-out of its socket, or raise TimeoutError."""

    def __init__(self, sock: socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = BufferedReader(_BytesInTime(sock))


class _Connection(HTTPConnection):
    """A connection whose time-out bounds all of one exchange.

    That of `http.client` bounds each read: an issuer that sends a byte now and then would never be given up.
    """

    response_class = _Answer

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline = time.monotonic() + (self.timeout or 0)

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_left_s(self._deadline))

    def getresponse(self) -> HTTPResponse:
        self.sock.settimeout(_left_s(self._deadline))
        return super().getresponse()


class _TlsConnection(HTTPSConnection, _Connection):
    """The same with TLS: the handshake is part of the exchange."""


class _Http(HTTPHandler):
    def http_open(self, request: Request) -> HTTPResponse:
        return self.do_open(_Connection, request)


class _Https(HTTPSHandler):
    def https_open(self, request: Request) -> HTTPResponse:
        return self.do_open(_TlsConnection, request)


def _left_s(deadline: float) -> float:
    """The seconds until a deadline. Raises TimeoutError after it."""
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s
