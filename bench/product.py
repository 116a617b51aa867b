"""The product under measurement: embedded servers, and the Procfile's processes on them."""

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import Any, Self

import psycopg

from app.config import Settings
from app.context import Context
from app.logs import configure_logs
from bench import NotMeasured, OutOfTime
from bench.client import Caller
from bench.usage import family
from devstack.__main__ import CHECKOUT, READY_WORDS, is_healthy
from devstack.passwords import kept_key_file
from devstack.processes import HOST, Command, end, free_port
from devstack.procfile import read_procfile
from devstack.servers import EmbeddedPostgres, EmbeddedValkey

_ADMIN = "operator@example.com"
_START_S = 120.0
_STOP_S = 10.0
_SLOW_STORE = Path(__file__).parent / "slow_store"


@dataclass(frozen=True)
class Program:
    """A running line of the Procfile."""

    process: "Popen[bytes]"
    log: Path


class Product:
    """The product with authentication on, its servers and its web processes, within a `with` block.

    `settings` are those of `app.config.Settings`. Nothing of it is left afterwards.
    """

    def __init__(self, directory: Path, **settings: str) -> None:
        directory.mkdir()
        self._directory, self._owned = directory, ExitStack()
        self._programs: dict[str, Program] = {}
        self._lines = read_procfile(CHECKOUT / "Procfile")
        self._postgres = EmbeddedPostgres(directory / "postgres", durable=True)
        self._valkey = EmbeddedValkey(directory / "valkey")
        self.port, self.data_dir = free_port(), directory / "data"
        secret = secrets.token_urlsafe()
        self._settings = {
            "database_url": self._postgres.product_url,
            "broker_url": self._valkey.url,
            "data_dir": str(self.data_dir),
            "auth_enabled": "true",
            "admin_email": _ADMIN,
            "console_key_file": kept_key_file(directory / "console-keys"),
            "gateway_secret": secret,
            "worker_soft_shutdown_seconds": "2",
            **settings,
        }
        proof = f"X-Workspaces-Gateway-Secret: {secret}\r\n"
        self.ann = Caller(self.port, f"{proof}X-NMP-Principal-Id: ann\r\n")
        """A user, who is Admin of the workspaces that she creates."""
        self.operator = Caller(
            self.port, f"{proof}X-NMP-Principal-Id: operator\r\nX-NMP-Principal-Email: {_ADMIN}\r\n"
        )

    @property
    def _environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("WORKSPACES_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{CHECKOUT}:{_SLOW_STORE}",
            "PYTHONUNBUFFERED": "1",
            "HOST": HOST,
            "PORT": str(self.port),
            "REMAP_SIGTERM": "SIGQUIT",
            "WEB_CONCURRENCY": "2",
            "WORKER_CONCURRENCY": "2",
            **{f"WORKSPACES_{name.upper()}": value for name, value in self._settings.items()},
        }

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._close)
            self.data_dir.mkdir()
            for server in (self._postgres, self._valkey):
                server.start(timeout_s=_START_S)
            self._release()
            self.start("web")
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._owned.close()
        for name in list(self._programs):
            self.stop(name)
        for server in (self._valkey, self._postgres):
            server.discard()

    def _release(self) -> None:
        program = self.spawn("release", WORKSPACES_MIGRATION_DATABASE_URL=self._postgres.url)
        if program.process.wait(_START_S):
            raise NotMeasured(f"the release failed: {program.log.read_text()[-500:]}")

    # --- processes ----------------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Run lines of the Procfile, unless they run, and wait until they are ready."""
        for name in names:
            if name not in self._programs:
                self._programs[name] = self.spawn(name)
        for name in names:
            self.wait_until(lambda name=name: self.is_ready(name, self._programs[name]), until=inf)  # type: ignore[misc]

    def stop(self, *names: str) -> None:
        """End lines of the Procfile that run."""
        for name in names:
            if program := self._programs.pop(name, None):
                end(program.process, signal.SIGTERM, grace_s=_STOP_S)

    def spawn(self, name: str, *, line: str | None = None, log_name: str = "", **environment: str) -> Program:
        """Run a line of the Procfile, or another `line` in its place, that the caller ends."""
        line = line or self._lines[name].replace("'app:create_app()'", "'bench.bare:create_app()'")
        log = self._directory / f"{log_name or name}.log"
        command = Command(
            ("/bin/sh", "-c", f"cd '{CHECKOUT}' && {line}"), env={**self._environment, **environment}
        )
        with log.open("wb") as output:
            return Program(command.spawn(output), log)

    def is_ready(self, name: str, program: Program) -> bool:
        """Whether a program is at work. Raises NotMeasured if it has ended."""
        if program.process.poll() is not None:
            raise NotMeasured(f"{name} ended: {program.log.read_text(errors='replace')[-500:]}")
        words = READY_WORDS.get(name)
        return words in program.log.read_text() if words else is_healthy(self.port, "/health/ready")

    def pids(self, *names: str) -> list[int]:
        """The processes of lines of the Procfile; `postgres` is the database server."""
        roots = [self._programs[name].process.pid for name in names if name in self._programs]
        if "postgres" in names:
            first = (self._postgres.home.cluster / "postmaster.pid").read_text().split()[0]
            roots.append(int(first))
        return family(roots)

    def wait_until(self, condition: Callable[[], bool], *, until: float, poll_s: float = 0.01) -> None:
        """Return as soon as the condition holds. Raises OutOfTime at `until`, a time of `monotonic()`."""
        until = min(until, time.monotonic() + 3600)
        while not condition():
            if time.monotonic() > until:
                raise OutOfTime
            time.sleep(poll_s)

    # --- behind the API -----------------------------------------------------------------------------------

    @cached_property
    def database(self) -> "psycopg.Connection[Any]":
        """A connection of the owner of the tables, in autocommit."""
        return self._owned.enter_context(self.connect())

    def connect(self, *, autocommit: bool = True) -> "psycopg.Connection[Any]":
        """Another one, with the same settings as the product's connections."""
        url = self._postgres.url.replace("+psycopg", "", 1)
        return psycopg.connect(url, autocommit=autocommit, prepare_threshold=5)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a statement of ours."""
        cursor = self.database.execute(sql, values)
        return cursor.fetchall() if cursor.description else []

    @cached_property
    def context(self) -> Context:
        """The product's context in this process."""
        values: dict[str, Any] = {**self._settings, "log_level": "ERROR"}
        context = Context.open(Settings(**values))
        configure_logs(context.settings)
        self._owned.callback(context.sessions.kw["bind"].dispose)
        return context
