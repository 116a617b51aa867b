"""Receivers of notifications in the process of the test: an HTTP server, and a mail server."""

import socket
import socketserver
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

from tests.support.serving import serving


@dataclass
class Received:
    """One request that a receiver has got."""

    headers: dict[str, str]
    body: bytes

    def verified_by(self, secret: str) -> Any:
        """Its document, as somebody with that secret gets it. Raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """An HTTP server that answers with `status`, after `meanwhile`."""

    url: str = ""
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None

    def documents(self, secret: str) -> list[Any]:
        return [one.verified_by(secret) for one in self.received]


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver on loopback."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.append(
                Received({name.lower(): value for name, value in self.headers.items()}, body)
            )
            receiver.meanwhile()
            if receiver.answer:
                receiver.answer(self)
                return
            self.send_response(receiver.status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook?of=ours"
    with serving(server):
        yield receiver


@dataclass
class Mailbox:
    """A mail server that keeps what it gets, and answers to recipients with `recipient_code`."""

    url: str = ""
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    recipient_code: int = 250
    is_abrupt: bool = False
    """Whether it closes the connection at QUIT, without a word."""
    protected: int = 0
    """Connections that came to TLS."""


@contextmanager
def mailbox(tls: ssl.SSLContext | None = None, *, is_tls_first: bool = False) -> Iterator[Mailbox]:
    """A mail server on loopback, of the little that a client needs; with STARTTLS, or TLS from the first byte on."""
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if tls and is_tls_first:
                self._protect(tls)
            self._say(220, "ready")
            while line := self.rfile.readline():
                command = line.decode().strip()
                match command[:4].upper():
                    case "EHLO" if tls:
                        self.wfile.write(b"250-fine\r\n250 STARTTLS\r\n")
                    case "EHLO" | "HELO" | "MAIL":
                        self._say(250, "fine")
                    case "STAR" if tls:
                        self._say(220, "go ahead")
                        self._protect(tls)
                    case "RCPT":
                        if box.recipient_code == 250:
                            box.recipients.append(command.partition(":")[2])
                        self._say(box.recipient_code, "so be it")
                    case "DATA":
                        self._say(354, "go on")
                        box.mails.append(self._mail())
                        self._say(250, "taken")
                    case "RSET":
                        self._say(250, "fine")
                    case "QUIT":
                        if not box.is_abrupt:
                            self._say(221, "bye")
                        return
                    case _:
                        self._say(500, "what?")

        def _protect(self, tls: ssl.SSLContext) -> None:
            box.protected += 1
            self.connection = tls.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)

        def finish(self) -> None:
            super().finish()
            self.connection.close()

        def _mail(self) -> EmailMessage:
            lines = iter(self.rfile.readline, b".\r\n")
            mail = message_from_bytes(b"".join(lines), policy=default)
            assert isinstance(mail, EmailMessage)
            return mail

        def _say(self, code: int, text: str) -> None:
            self.wfile.write(f"{code} {text}\r\n".encode())

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    box.url = f"smtp://127.0.0.1:{server.server_address[1]}"
    with serving(server):
        yield box


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
