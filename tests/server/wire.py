"""Requests as bytes on a connection, which no client library would send."""

import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

from tests.support.deadlines import DEADLINE_S
from tests.support.stack import Stack

FILESETS = "/apis/files/v2/workspaces/default/filesets"
WORKSPACES = "/apis/entities/v2/workspaces"


def connect(stack: Stack, connections: ExitStack, *lines: str, rest: str = "") -> socket.socket:
    """A connection over which these lines were sent and then `rest`, and nothing else."""
    address = urlsplit(stack.api_url)
    connection = socket.create_connection((address.hostname, address.port), timeout=DEADLINE_S)
    connections.enter_context(connection)
    connection.sendall("".join([*(f"{line}\r\n" for line in lines), rest]).encode())
    return connection


def answer(connection: socket.socket) -> tuple[int, str, bytes]:
    """Status, headers and body of the response, after which the server has closed the connection."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body
