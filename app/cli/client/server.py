"""The API of a server, over HTTP."""

import json
import os
import time
from email.utils import formatdate, parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import click

from app.cli.client.api import Away, Query, refused
from app.version import VERSION

_TIMEOUT_S = 30.0
"""Longer than a server lets any request of ours wait."""

_LONGEST_PAUSE_S = 60.0


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect: the token is for the named server alone."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


class Server:
    """The server at a URL, asked with a token, if there is one."""

    option = ""

    def __init__(self, url: str, token: str = "") -> None:
        """Raises UsageError for what is not the address of a server."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise click.UsageError(
                "--server must be http://host:port or https://host, without a name and a password in it."
            )
        self._url = url.rstrip("/")
        self._open = build_opener(_NoRedirects).open
        self._headers = {"User-Agent": f"workspaces/{VERSION}", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._answered_at = ""

    def ask(self, method: str, path: str, query: Query | None = None, body: Any = None) -> Any:
        """The body of the answer to a request. Raises Refused or Away."""
        given = urlencode({name: value for name, value in (query or {}).items() if value is not None})
        request = Request(  # noqa: S310 -- the scheme was looked at
            f"{self._url}{path}{'?' if given else ''}{given}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={**self._headers, **({} if body is None else {"Content-Type": "application/json"})},
        )
        while True:
            status, headers, text = self._send(request)
            self._answered_at = headers.get("Date") or formatdate()
            pause_s = _pause(headers) if status == 429 else None
            if pause_s is None:
                return self._body(status, text)
            time.sleep(pause_s)  # nothing was done: it is a limit on writes

    def time(self) -> str:
        """The server's time, in full seconds."""
        self.ask("GET", "/cluster-info")
        return f"{parsedate_to_datetime(self._answered_at):%Y-%m-%dT%H:%M:%S}Z"

    def _send(self, request: Request) -> tuple[int, Any, bytes]:
        try:
            with self._answer(request) as answer:
                return answer.status, answer.headers, answer.read()
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            why = " ".join(str(reason).split()) or type(reason).__name__
            raise Away(
                f"the server {self._url} does not answer: {why}; where the database can be reached, --direct works "
                "without a server"
            ) from None

    def _answer(self, request: Request) -> Any:
        """The answer to a request, also one that says what is wrong with it."""
        try:
            return self._open(request, timeout=_TIMEOUT_S)
        except HTTPError as error:
            return error

    def _body(self, status: int, text: bytes) -> Any:
        try:
            body = json.loads(text)
            if status < 300:
                return body
            detail = body["detail"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise refused(
                status, f"{self._url} answers {status}, and not as Workspaces does; is --server right?"
            ) from None
        if status == 401:
            detail = f"{detail}; put a token into WORKSPACES_TOKEN, or into a file (WORKSPACES_TOKEN_FILE)"
        raise refused(status, detail)


def _pause(headers: Any) -> float | None:
    """How long a server asks to be spared, if that is worth waiting for."""
    given = str(headers.get("Retry-After", ""))
    return float(given) if given.isdigit() and int(given) <= _LONGEST_PAUSE_S else None


def token_of(environment: "os._Environ[str]" = os.environ) -> str:
    """The token of `WORKSPACES_TOKEN`, or of the file that `WORKSPACES_TOKEN_FILE` names; empty if there is none.

    Never an argument, which all users of the machine can read. Raises UsageError for a file that others can read.
    """
    if token := environment.get("WORKSPACES_TOKEN", "").strip():
        return token
    directory = environment.get("XDG_CONFIG_HOME") or "~/.config"
    named = environment.get("WORKSPACES_TOKEN_FILE", "")
    path = Path(named or f"{directory}/workspaces/token").expanduser()
    try:
        with path.open() as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise click.UsageError(f"Others can read the token in {path}: chmod 600 {path}")
            return file.read().strip()
    except FileNotFoundError:
        if named:
            raise click.UsageError(f"The file {path} of WORKSPACES_TOKEN_FILE is not there.") from None
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"The token in {path} cannot be read: {error}") from None
