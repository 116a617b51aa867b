"""`GET /health/live`, answered by the thread that accepts connections: all others may be waiting for something."""

import re
from typing import Any

from werkzeug.test import Client

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
