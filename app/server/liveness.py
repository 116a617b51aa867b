"""`GET /health/live`, answered by the thread that accepts connections: all others may be waiting for something."""

import re
import socket
from contextlib import suppress
from typing import Any

from werkzeug.test import Client

PEEKED_BYTES = 4096
"""A longer request is left to the application, which answers the same."""

_REQUEST = re.compile(rb"GET /health/live HTTP/1\.[01]\r\n(?:(?!\r\n)[^\n]*\n)*\r\n")


def asks_if_live(received: bytes) -> bool:
    """Whether these bytes are the whole of one request for `/health/live`."""
    return _REQUEST.fullmatch(received) is not None


def live_response(app: Any) -> bytes:
    """The response of the WSGI application `app`, which is the same each time but for the id of the request."""
    response = Client(app).get("/health/live")
    body: bytes = response.data
    del response.headers["X-Request-Id"]
    response.headers["Connection"] = "close"
    head = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
    return f"HTTP/1.1 {response.status}\r\n{head}\r\n".encode() + body


def respond(connection: socket.socket, response: bytes) -> None:
    """Answer the request that `connection` has received in whole. Never waits, and never fails."""
    connection.settimeout(0)
    with suppress(OSError):
        # Read first: bytes left unread would make the kernel discard the response when the connection is closed.
        connection.recv(PEEKED_BYTES)
        connection.send(response)
