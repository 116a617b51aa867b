"""Connecting to a receiver or a mail server, within one deadline for all of its addresses."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from app.notifications.attempt import Deadline

_LONGEST_CONNECT_S = 2.0
"""How long one of several addresses is tried."""


@contextmanager
def connected(addresses: Sequence[str], port: int, deadline: Deadline) -> Iterator[socket.socket]:
    """A connection to the first of some addresses that answers, for the block. Raises OSError.

    It is shut down at the deadline, also during a handshake. The caller closes the TLS socket that it has made of it.
    """
    with _connect(addresses, port, deadline) as opened, deadline.ending(opened):
        yield opened


def _connect(addresses: Sequence[str], port: int, deadline: Deadline) -> socket.socket:
    error: OSError | None = None
    for number, address in enumerate(addresses, start=1):
        left_s = deadline.left_s
        is_last = number == len(addresses)
        try:
            opened = socket.create_connection(
                (address, port), timeout=left_s if is_last else min(left_s, _LONGEST_CONNECT_S)
            )
        except OSError as refused:
            error = refused
            continue
        opened.settimeout(deadline.left_s)
        return opened
    raise error or OSError("no address")


@cache
def tls() -> ssl.SSLContext:
    """TLS with the certificates of the system. Kept: to read them all takes longer than a request."""
    return ssl.create_default_context()
