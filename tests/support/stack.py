"""The whole product as real processes: PostgreSQL, Valkey, and the commands of the Procfile."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx

from devstack.__main__ import CHECKOUT, READY_WORDS, is_healthy
from devstack.passwords import kept_key_file
from devstack.processes import HOST, Command, free_port, kill_group
from devstack.procfile import read_procfile
from devstack.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.clusters import lay_out
from tests.support.deadlines import DEADLINE_S
from tests.support.preloaded import Preloaded, start_preloaded

ALL = ("web", "worker", "maintenance", "runtime", "beat")
START_TIMEOUT_S = DEADLINE_S
TAIL_LINES = 25


@dataclass(eq=False)
class Part:
    """One running program of the product, and everything it has said."""

    name: str
    process: "subprocess.Popen[bytes] | Preloaded"
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """Kill it and its children without warning, as the kernel or a power cut would."""
        kill_group(self.process)

    def pause(self) -> None:
        """Stop it and its children in the middle of what they do, until `resume`."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self, *, grace_s: float = DEADLINE_S) -> None:
        """Ask it to end, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(grace_s)
        self.kill()  # what its children left behind


class Stack:
    """A running product. Nothing of it outlives the `with` block, nor the test run, however that ends.

    Starts the servers, migrates and seeds, starts `parts` (names of the Procfile), and is ready when they are.
    `settings` are those of `app.config.Settings`; `environment` is for everything else the programs read, and
    `plug_ins` are directories from which they can import. Programs without LD_PRELOAD are forked from one that has
    loaded their packages. Their role in the database is the product's; `database_url` is of the owner,
    for tests.
    """

    def __init__(
        self,
        directory: Path,
        *,
        parts: Iterable[str] = ALL,
        environment: Mapping[str, str] | None = None,
        plug_ins: Iterable[str | Path] = (),
        **settings: Any,
    ) -> None:
        self._directory = directory
        self._wanted = tuple(parts)
        self._commands = read_procfile(CHECKOUT / "Procfile")
        self._owned = ExitStack()
        self.parts: list[Part] = []
        self.data_dir = directory / "data"
        self.blob_root = self.data_dir / "blobs"
        self.postgres = EmbeddedPostgres(directory / "postgres", durable=False)
        self.valkey = EmbeddedValkey(directory / "valkey")
        self.database_url, self.broker_url = self.postgres.url, self.valkey.url
        port, flower_port = free_port(), free_port()
        self.api_url, self.flower_url = f"http://{HOST}:{port}", f"http://{HOST}:{flower_port}"
        self._addresses = {"web": (port, "/health/ready"), "flower": (flower_port, "/healthcheck")}
        keys = kept_key_file(directory / "secrets-keys")
        settings = {"worker_soft_shutdown_seconds": 2, "secrets_key_file": keys, **settings}
        settings |= {
            "database_url": self.postgres.product_url,
            "broker_url": self.broker_url,
            "data_dir": self.data_dir,
        }
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WORKSPACES_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "HOST": HOST,
            "PORT": str(port),
            "FLOWER_PORT": str(flower_port),
            "FLOWER_UNAUTHENTICATED_API": "true",
            "REMAP_SIGTERM": "SIGQUIT",
            # Two cores are enough for a test; the numbers of a server would only cost time and memory.
            "WEB_CONCURRENCY": "1",
            "WORKER_CONCURRENCY": "2",
            "RUNTIME_CONCURRENCY": "200",  # threads, two for each job and deployment that runs
            **(environment or {}),
            # This checkout, installed or not, and whatever plug-ins the test brings.
            "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *map(str, plug_ins)]),
            **{f"WORKSPACES_{name.upper()}": _as_variable(value) for name, value in settings.items()},
        }

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._close)
            self.data_dir.mkdir(parents=True)
            lay_out(self.postgres)
            for server in (self.postgres, self.valkey):
                server.start()
            self._run_to_end("release")
            self.client = self._owned.enter_context(httpx.Client(base_url=self.api_url, timeout=30))
            parts = [self.start(name, wait=False) for name in self._wanted]
            for part in parts:
                self.wait_until_ready(part)
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._owned.close()
        for part in self.parts:
            part.kill()
        for server in (self.valkey, self.postgres):
            server.kill()
            server.discard()

    def directories_of(self, run: UUID | str) -> list[Path]:
        """The working directory of a job or a deployment, if it has one."""
        return list((self.data_dir / "runs").glob(f"*/{run}"))

    # --- programs -----------------------------------------------------------------------------------------

    def start(self, name: str, *, wait: bool = True, **environment: str) -> Part:
        """Run one more of the Procfile's `name`, and wait until it is at work."""
        part = self._spawn(name, environment)
        self.parts.append(part)
        if wait:
            self.wait_until_ready(part)
        return part

    def start_worker(self) -> Part:
        """Run one more cleanup worker."""
        return self.start("worker")

    def running(self, name: str) -> list[Part]:
        """Those of the Procfile's `name` that are alive, the oldest first."""
        return [part for part in self.parts if part.name == name and part.is_alive]

    def log(self, name: str) -> str:
        """Everything that all programs of that name have said, the oldest first."""
        return "".join(part.log for part in self.parts if part.name == name)

    def wait_until_ready(self, part: Part) -> None:
        """Return once `part` does its work. Fails when it ends instead."""

        def is_ready() -> bool:
            assert part.is_alive, f"{part.name} ended with {part.process.returncode}:\n{_tail(part.log)}"
            if words := READY_WORDS.get(part.name):
                return words in part.log
            return is_healthy(*self._addresses[part.name])

        self.wait_until(is_ready, f"{part.name} is ready", timeout_s=START_TIMEOUT_S)

    def _spawn(self, name: str, environment: Mapping[str, str]) -> Part:
        number = 1 + sum(part.name == name for part in self.parts)
        log_path = self._directory / f"{name}-{number}.log"
        log_path.touch()
        env = {**self._environment, **environment}
        if name == "release":
            env["WORKSPACES_MIGRATION_DATABASE_URL"] = self.database_url
        if "LD_PRELOAD" not in env:
            process = start_preloaded(self._commands[name], env=env, cwd=CHECKOUT, output=log_path)
            return Part(name, process, log_path)
        # The Procfile's paths are those of the checkout.
        command = Command(("/bin/sh", "-c", f"cd '{CHECKOUT}' && {self._commands[name]}"), env=env)
        with log_path.open("wb") as output:
            return Part(name, command.spawn(output), log_path)

    def _run_to_end(self, name: str) -> None:
        part = self._spawn(name, {})
        self.parts.append(part)
        assert part.process.wait(START_TIMEOUT_S) == 0, _tail(part.log)

    # --- waiting ------------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], Any], what: str, *, timeout_s: float = DEADLINE_S) -> float:
        """Return as soon as `condition()` holds: the seconds it took.

        Fails after `timeout_s` with `what` and the ends of all logs.
        """
        started = time.monotonic()
        while not condition():
            waited_s = time.monotonic() - started
            if waited_s > timeout_s:
                raise AssertionError(f"not within {timeout_s:g} s: {what}\n{self.tails()}")
            # What takes long is asked for less often: most conditions are requests.
            time.sleep(min(max(0.02, waited_s / 10), 0.5))
        return time.monotonic() - started

    def tails(self) -> str:
        """The end of each log, for people who look for a cause."""
        return "\n".join(
            f"--- {part.log_path.name} ({'running' if part.is_alive else 'ended'})\n{_tail(part.log)}"
            for part in self.parts
        )


def _as_variable(value: object) -> str:
    return json.dumps(value) if isinstance(value, tuple | list) else str(value)


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-TAIL_LINES:])
