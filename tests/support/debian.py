"""Programs of Debian packages, as servers of a test: an older PostgreSQL, and PgBouncer."""

import os
import pwd
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import make_url

from devstack.homes import UNPRIVILEGED_USER
from devstack.processes import HOST, Command
from devstack.servers import EmbeddedServer, database_answers
from tests.support.database import database_at

OLDEST_POSTGRES = Path("/usr/lib/postgresql/15/bin")
PGBOUNCER = "/usr/sbin/pgbouncer"
SERVER_CONNECTIONS = 3
"""How many connections to the database PgBouncer shares among its clients."""

needs_oldest_postgres = pytest.mark.needs(str(OLDEST_POSTGRES / "postgres"), package="postgresql-15")
needs_pgbouncer = pytest.mark.needs(PGBOUNCER, package="pgbouncer")


class _DebianServer(EmbeddedServer):
    """A server with a directory that an unprivileged user can reach, because it refuses to run as root."""

    def __init__(self) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="workspaces-tests-")))
        self.user = UNPRIVILEGED_USER if os.geteuid() == 0 else None
        if self.user:
            owner = pwd.getpwnam(self.user)
            os.chown(self.data_dir, owner.pw_uid, owner.pw_gid)

    def answers(self) -> bool:
        return database_answers(self.url)


class OldestPostgres(_DebianServer):
    """The oldest PostgreSQL that is supported."""

    name = "postgres15"

    def __init__(self) -> None:
        super().__init__()
        self.url = f"postgresql+psycopg://app@{HOST}:{self.port}/postgres"
        self._cluster = self.data_dir / "cluster"
        options = [f"listen_addresses={HOST}", f"port={self.port}", "unix_socket_directories=", "fsync=off"]
        postgres = (str(OLDEST_POSTGRES / "postgres"), "-D", str(self._cluster))
        self.command = Command(
            (*postgres, *(f"-c{option}" for option in options)),
            env={"TZ": "UTC"},
            user=self.user,
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGINT,
        )

    def prepare(self) -> None:
        if not self._cluster.exists():
            options = ("-U", "app", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
            initdb = Command(
                (str(OLDEST_POSTGRES / "initdb"), "-D", str(self._cluster), *options), user=self.user
            )
            assert initdb.spawn(subprocess.DEVNULL).wait() == 0


class PgBouncer(_DebianServer):
    """A pooler in transaction mode before the database at `url`, with fewer connections than clients."""

    name = "pgbouncer"

    def __init__(self, url: str) -> None:
        super().__init__()
        behind = make_url(url)
        self.url = behind.set(port=self.port).render_as_string(hide_password=False)
        self._console = database_at(self.url, "pgbouncer")
        self._settings = f"""[databases]
* = host={behind.host} port={behind.port}
[pgbouncer]
listen_addr = {HOST}
listen_port = {self.port}
unix_socket_dir =
auth_type = trust
auth_file = {self.data_dir}/users
admin_users = {behind.username}
pool_mode = transaction
default_pool_size = {SERVER_CONNECTIONS}
"""
        self._users = f'"{behind.username}" "{behind.password}"\n'
        self.command = Command((PGBOUNCER, str(self.data_dir / "pgbouncer.ini")), user=self.user)

    def prepare(self) -> None:
        (self.data_dir / "pgbouncer.ini").write_text(self._settings)
        (self.data_dir / "users").write_text(self._users)

    def answers(self) -> bool:
        # Its console, so that it has no connection to the database before a test makes one.
        return database_answers(self._console)

    def reconnect(self) -> None:
        """Open new connections to the database from now on, as its operator does after a change of the role."""
        self._command("RECONNECT")

    def clients(self) -> list[str]:
        """The database of each client that is connected now, the console among them."""
        return [one["database"] for one in self._command("SHOW CLIENTS")]

    def _command(self, command: LiteralString) -> list[dict[str, Any]]:
        console = self._console.replace("+psycopg", "")
        with psycopg.connect(console, autocommit=True, prepare_threshold=None, row_factory=dict_row) as admin:
            answer = admin.execute(command)
            return answer.fetchall() if answer.description else []
