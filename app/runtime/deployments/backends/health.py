"""The health check of a server on this host: one request with one deadline."""

import http.client
import socket
import time
from typing import Any


def health_problem(host: str, port: int, path: str, *, within_s: float) -> str | None:
    """Why the server cannot serve yet; None if it answers 2xx. The body of the answer is not read."""
    connection = http.client.HTTPConnection(host, port)
    # A plain time-out begins anew with each byte: a server that trickles could block its supervisor.
    connection_socket = DeadlineSocket(within_s)
    connection.sock = connection_socket
    try:
        connection_socket.connect((host, port))
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{path} does not answer ({type(error).__name__})"
    finally:
        connection.close()
    return None if 200 <= status < 300 else f"{path} answers {status}"


class DeadlineSocket(socket.socket):
    """A socket with one deadline for the whole exchange."""

    def __init__(self, within_s: float) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._deadline = time.monotonic() + within_s
        self.settimeout(within_s)

    def recv_into(self, *args: Any, **options: Any) -> int:
        """As `socket.recv_into`. Raises TimeoutError after the deadline."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left_s)
        return super().recv_into(*args, **options)
