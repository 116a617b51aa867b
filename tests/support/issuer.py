"""A real token issuer on loopback: keys of its own, a discovery document, a JWKS; and ways to misbehave."""

import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.support.deadlines import DEADLINE_S
from tests.support.serving import serving

AUDIENCE = "workspaces"


@dataclass(frozen=True)
class Key:
    """A pair of keys, by the id under which the public one is published."""

    kid: str
    algorithm: str
    private: Any

    @property
    def jwk(self) -> dict[str, Any]:
        kind = RSAAlgorithm if self.algorithm == "RS256" else ECAlgorithm
        public = json.loads(kind.to_jwk(self.private.public_key()))
        return public | {"kid": self.kid, "use": "sig", "alg": self.algorithm}

    @property
    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


@cache
def rsa_key(kid: str, bits: int = 2048) -> Key:
    return Key(kid, "RS256", rsa.generate_private_key(public_exponent=65537, key_size=bits))


@cache
def ec_key(kid: str) -> Key:
    return Key(kid, "ES256", ec.generate_private_key(ec.SECP256R1()))


@dataclass
class LocalIssuer:
    """Serves while the `with` block runs. `keys` and `extra_jwks` can be changed at any time."""

    keys: list[Key] = field(default_factory=lambda: [rsa_key("rsa-1"), ec_key("ec-1")])
    extra_jwks: list[Any] = field(default_factory=list)
    status: int = 200
    hits: Counter[str] = field(default_factory=Counter)
    url: str = ""
    document_overrides: dict[str, Any] = field(default_factory=dict)
    keys_answer: Any = None
    """Published instead of the keys."""
    raw: bytes = b""
    """Sent instead of any answer."""
    silent: threading.Event = field(default_factory=threading.Event)
    """While set, connections are accepted and nothing is answered."""
    trickling: Literal["", "header", "body"] = ""
    """What of the answer is sent byte by byte, never silent for long."""
    was_waited_for: bool = False
    """Somebody waited until the end of what was trickling."""
    tls: ssl.SSLContext | None = None
    """With which it answers at `https://localhost`."""
    misbehaving_at: str = ""
    """The only path where it is silent, trickles or answers `raw`; empty for all."""

    _serving: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(lambda: (issuer.status, issuer.answer(self.path)))

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.reply(lambda: issuer.posted(self.path, form, self.headers.get("Authorization", "")))

            def reply(self, made: Callable[[], tuple[int, Any]]) -> None:
                issuer.hits[self.path] += 1
                is_bad = self.path == (issuer.misbehaving_at or self.path)
                while is_bad and issuer.silent.is_set():
                    time.sleep(0.01)
                if is_bad and issuer.raw:
                    self.close_connection = True
                    self.wfile.write(issuer.raw)
                    return
                with suppress(OSError):
                    self.send(*made(), slowly=issuer.trickling if is_bad else "")

            def send(self, status: int, answer: Any, *, slowly: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if slowly == "header":
                    self.trickle(b"Slow:")
                    self.wfile.write(b"\r\n")
                self.end_headers()
                if slowly == "body":
                    self.trickle(b" ")
                self.wfile.write(json.dumps(answer).encode())

            def trickle(self, first: bytes) -> None:
                """Send spaces, which say nothing."""
                self.flush_headers()
                self.wfile.write(first)
                until = time.monotonic() + DEADLINE_S
                while issuer.trickling and not issuer.was_waited_for:
                    self.wfile.write(b" ")
                    time.sleep(0.01)
                    issuer.was_waited_for = time.monotonic() > until

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        if self.tls:
            self.url = f"https://localhost:{server.server_port}"
            server.socket = self.tls.wrap_socket(server.socket, server_side=True)
        self._serving.enter_context(serving(server))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Go away: connections are refused from now on."""
        self.trickling = ""
        self.silent.clear()
        self._serving.close()

    def answer(self, path: str) -> Any:
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "token_endpoint": f"{self.url}/token",
                "device_authorization_endpoint": f"{self.url}/device",
            } | self.document_overrides
        if self.keys_answer is not None:
            return self.keys_answer
        return {"keys": [*self.extra_jwks, *(key.jwk for key in self.keys)]}

    def posted(self, path: str, form: str, authorization: str) -> tuple[int, Any]:
        """The status and the answer to a POST."""
        return 404, {}

    def token(self, *, key: Key | None = None, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A good token of ann's; `claims` replace parts of it, and None takes one out."""
        key = key or self.keys[0]
        now = int(time.time())
        standard = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ann",
            "email": "ann@example.com",
            "iat": now,
            "exp": now + 600,
        }
        wanted = {name: value for name, value in (standard | claims).items() if value is not None}
        return jwt.encode(wanted, key.private, key.algorithm, headers={"kid": key.kid, **(headers or {})})
