"""`make up` as users run it, with the real servers and tiny programs in place of the product's."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from sqlalchemy import make_url

from app.config.keys import read_keys
from devstack.__main__ import no_answer_at
from devstack.processes import free_port
from devstack.servers import EmbeddedPostgres, EmbeddedValkey
from devstack.supervisor import GRACE_S, Stage
from tests.devstack.stacks import PROCFILE, Stack, alive, eventually, make_checkout, running
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Within

# As `workspaces db upgrade` does, the owner makes the role of the processes.
RELEASE = """
import os, psycopg
from sqlalchemy import make_url
product = make_url(os.environ["WORKSPACES_DATABASE_URL"])
owner = os.environ["WORKSPACES_MIGRATION_DATABASE_URL"].replace("+psycopg", "")
with psycopg.connect(owner) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS runs (at timestamptz)")
    if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [product.username]).fetchone():
        connection.execute(f"CREATE ROLE {product.username} LOGIN PASSWORD '{product.password}'")
    connection.execute(f"GRANT SELECT, INSERT ON runs TO {product.username}")
"""
COUNT_RUNS = """
import os, psycopg
assert "WORKSPACES_MIGRATION_DATABASE_URL" not in os.environ
with psycopg.connect(os.environ["WORKSPACES_DATABASE_URL"].replace("+psycopg", "")) as connection:
    connection.execute("INSERT INTO runs VALUES (now())")
    print("run number", connection.execute("SELECT count(*) FROM runs").fetchone()[0])
"""


KEPT = ("environment", "access-key-signing.pem", "secrets-keys", "console-keys")
"""Files below the data directory that are for its owner alone. All but the first are never made anew."""

COUNTING = PROCFILE | {
    "release": "python release.py",
    "worker": "python count.py; echo at work, ready.; exec sleep 600",
}


def write_counting(checkout: Path) -> None:
    """Put the programs of `COUNTING` into a checkout."""
    (checkout / "release.py").write_text(RELEASE)
    (checkout / "count.py").write_text(COUNT_RUNS)


def test_it_says_what_is_where_and_labels_every_line(checkout: Path) -> None:
    with running(checkout, is_new=True) as stack:
        assert eventually(lambda: stack.printed("data"))
        assert stack.printed(f"API       http://127.0.0.1:{stack.port}")

        assert "release  | migrated" in stack.lines
        assert "worker   | at work, ready." in stack.lines
        assert all(line[9:11] == "| " for line in stack.lines)


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(one, marks=pytest.mark.long) for one in (signal.SIGTERM, signal.SIGHUP))],
)
def test_a_signal_stops_everything_in_order(checkout: Path, number: signal.Signals) -> None:
    with running(checkout) as stack:
        processes = stack.descendants()
        stack.process.send_signal(number)

        assert stack.process.wait(DEADLINE_S) == 0
        assert alive(processes) == []
        assert len(processes) > 8
        assert stack.lines[-1] == "stack    | stopped"


def test_a_part_that_refuses_to_end_does_not_keep_it_from_stopping(tmp_path: Path, within: Within) -> None:
    stubborn = "trap '' TERM; echo beat: Starting, ready.; while true; do sleep 600; done"
    checkout = make_checkout(tmp_path / "checkout", PROCFILE | {"worker": stubborn, "beat": stubborn})
    with running(checkout) as stack:
        processes = stack.descendants()
        began = time.monotonic()
        stack.process.terminate()

        assert stack.process.wait(DEADLINE_S) == 0
        within("two parts that refuse to end: stopped", time.monotonic() - began, 10)
        assert alive(processes) == []


def test_programs_that_print_no_info_lines_are_not_waited_for(tmp_path: Path) -> None:
    silent = make_checkout(tmp_path / "checkout", PROCFILE | {"worker": "exec sleep 600"})
    with running(silent, WORKSPACES_LOG_LEVEL="WARNING") as stack:
        assert stack.is_ready()


def test_nothing_outlives_a_killed_supervisor(checkout: Path) -> None:
    with running(checkout) as stack:
        processes = stack.descendants()
        stack.process.kill()

        assert eventually(lambda: alive(processes) == [])


def test_a_second_run_finds_the_data_of_the_first(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout", COUNTING)
    write_counting(checkout)
    for number in (1, 2):
        with running(checkout) as stack:
            assert eventually(lambda: stack.printed(f"worker   | run number {number}"))  # noqa: B023 -- called at once


def test_what_it_makes_up_is_kept_for_its_owner_and_the_command_line(tmp_path: Path) -> None:
    """Flower's login is printed, the passwords of the servers are not; all are the same after a restart.

    Each program is told of the keys that it uses, and of no others.
    """
    told = "echo for secrets: $WORKSPACES_SECRETS_KEY_FILE.; echo for cookies: $WORKSPACES_CONSOLE_KEY_FILE."
    checkout = make_checkout(
        tmp_path / "checkout", {name: f"{told}; {line}" for name, line in PROCFILE.items()}
    )
    data_dir, logins, environments, files = checkout / ".data", [], [], []
    data_dir.mkdir(mode=0o755)  # as an earlier release made it
    for _ in range(2):
        with running(checkout) as stack:
            assert eventually(lambda: stack.printed("  data "))
            logins += [line.rpartition("login ")[2] for line in stack.lines if "login " in line]
            environments.append(exported(data_dir / "environment"))
            server = environments[-1].pop("WORKSPACES_SERVER")
            assert any(line.split() == ["stack", "|", "API", server] for line in stack.lines)

            urls = [make_url(url) for name, url in environments[-1].items() if name.endswith("_URL")]
            assert {url.username for url in urls} == {"product", "app", ""}
            assert all(url.password and not stack.printed(url.password) for url in urls)
            assert not any(url.password in str(one.cmdline()) for url in urls for one in stack.descendants())
            assert data_dir.stat().st_mode & 0o777 == 0o700
            kept = [data_dir / name for name in KEPT]
            assert [file.stat().st_mode & 0o777 for file in kept] == [0o600] * len(kept)
            files.append([file.read_bytes() for file in kept[1:]])

            secrets, cookies = data_dir / "secrets-keys", data_dir / "console-keys"
            assert environments[-1]["WORKSPACES_SECRETS_KEY_FILE"] == str(secrets)
            assert {f"web      | for secrets: {secrets}.", f"web      | for cookies: {cookies}."} <= set(
                stack.lines
            )
            for name in ("release", "worker", "flower"):
                assert {f"{name:<8} | for secrets: .", f"{name:<8} | for cookies: ."} <= set(stack.lines)

    assert logins[0].startswith("workspaces:")
    assert logins == [logins[0]] * 2
    assert files[0] == files[1]
    assert read_keys(str(secrets)) != read_keys(str(cookies))
    first, second = ([make_url(url).password for url in one.values() if "://" in url] for one in environments)
    assert first == second


def exported(file: Path) -> dict[str, str]:
    """The variables that a shell has after it has read the file."""
    shell = subprocess.run(
        ["env", "-i", "/bin/sh", "-c", f". '{file}'; env"], capture_output=True, text=True, check=True
    )
    variables = dict(line.split("=", 1) for line in shell.stdout.splitlines())
    return {name: value for name, value in variables.items() if name.startswith("WORKSPACES_")}


def test_jobs_have_ended_before_the_worker_that_stores_their_results_is_killed(tmp_path: Path) -> None:
    checkout = make_checkout(
        tmp_path / "checkout", PROCFILE | {"release": "echo grace $WORKSPACES_STOP_GRACE_SECONDS"}
    )
    with running(checkout) as stack:
        [grace] = [line.split()[-1] for line in stack.lines if "| grace " in line]
        assert float(grace) + 1 < GRACE_S[Stage.WORKERS]

    with running(checkout, WORKSPACES_STOP_GRACE_SECONDS="7") as stack:
        assert "release  | grace 7" in stack.lines


def test_servers_that_are_given_are_used_instead_of_its_own(tmp_path: Path) -> None:
    procfile = PROCFILE | {"release": "echo $WORKSPACES_DATABASE_URL $WORKSPACES_BROKER_URL"}
    checkout = make_checkout(tmp_path / "checkout", procfile)
    postgres, valkey = (
        EmbeddedPostgres(tmp_path / "given", durable=False),
        EmbeddedValkey(tmp_path / "valkey"),
    )
    try:
        given = {"WORKSPACES_DATABASE_URL": postgres.start(), "WORKSPACES_BROKER_URL": valkey.start()}
        with running(checkout, **given) as stack:
            assert f"release  | {postgres.url} {valkey.url}" in stack.lines
            assert not (checkout / ".data" / "postgres").exists()
            assert {"postgres", "valkey-server"}.isdisjoint(child.name() for child in stack.descendants())
    finally:
        postgres.discard()
        valkey.discard()


def test_a_killed_database_comes_back_with_its_data(tmp_path: Path) -> None:
    procfile = COUNTING | {
        "beat": "echo beat: Starting; while true; do python count.py 2>/dev/null; sleep 1; done"
    }
    checkout = make_checkout(tmp_path / "checkout", procfile)
    write_counting(checkout)
    with running(checkout) as stack:
        assert eventually(lambda: runs(stack.lines) >= 1)
        [postgres] = [child for child in stack.process.children() if child.name() == "postgres"]
        postgres.kill()
        fallen = "stack    | postgres was killed by SIGKILL; starting it again in 2 s"
        assert eventually(lambda: fallen in stack.lines)
        runs_before = runs(stack.lines)

        assert eventually(lambda: runs(stack.lines) > runs_before)


def runs(lines: list[str]) -> int:
    """How many runs were counted so far."""
    return max((int(line.split()[-1]) for line in lines if "run number" in line), default=0)


@pytest.mark.parametrize("variable", ["PORT", "FLOWER_PORT"])
def test_a_taken_port_is_one_line(checkout: Path, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        stack = Stack(checkout, **{variable: port})

        assert stack.process.wait(DEADLINE_S) == 1
    assert stack.lines == [f"make up: port {port} is in use; choose another one with {variable}=… make up."]


def test_a_port_that_is_none_is_one_line(checkout: Path) -> None:
    stack = Stack(checkout, FLOWER_PORT="flower")

    assert stack.process.wait(DEADLINE_S) == 1
    assert stack.lines == ["make up: FLOWER_PORT must be a port between 1 and 65535, not 'flower'."]


def test_one_port_for_both_is_one_line(checkout: Path) -> None:
    port = str(free_port())
    stack = Stack(checkout, PORT=port, FLOWER_PORT=port)

    assert stack.process.wait(10) == 1
    assert stack.lines == [f"make up: PORT and FLOWER_PORT are both {port}; give each one of its own."]


def test_where_everything_is_stands_below_what_the_parts_say(tmp_path: Path) -> None:
    slow = PROCFILE | {
        "worker": "sleep 4; echo now ready.; exec sleep 600",
        "flower": "(sleep 1; echo late) & exec python server.py $FLOWER_PORT",
    }
    with running(make_checkout(tmp_path / "checkout", slow)) as stack:
        assert eventually(lambda: stack.printed("data"))
        [began] = [
            index
            for index, line in enumerate(stack.lines)
            if line == "stack    | ready; Ctrl-C stops everything"
        ]

        assert {"worker   | now ready.", "flower   | late"} <= set(stack.lines[:began])
        assert all(line.startswith("stack ") for line in stack.lines[began:])


def test_a_second_stack_on_the_same_data_is_one_line(checkout: Path) -> None:
    with running(checkout) as first:
        second = Stack(checkout)

        assert second.process.wait(DEADLINE_S) == 1
        [line] = second.lines
        assert line.startswith(f"make up: another stack runs on {checkout / '.data'};")
        assert first.process.poll() is None


def test_a_release_that_fails_ends_everything_with_its_reason(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout", PROCFILE | {"release": "echo no such table; exit 3"})
    stack = Stack(checkout)

    assert stack.process.wait(DEADLINE_S) == 1
    assert stack.lines[-1] == "make up: release ended with status 3: no such table"
    assert not any(str(checkout) in (process.info["cwd"] or "") for process in psutil.process_iter(["cwd"]))


def test_a_server_that_was_named_and_is_away_is_not_taken_for_one_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a shell that has read the file `environment` of a stack that has ended."""
    monkeypatch.delenv("WORKSPACES_BROKER_URL", raising=False)
    assert no_answer_at("WORKSPACES_BROKER_URL") == "no server answers at WORKSPACES_BROKER_URL"

    monkeypatch.setenv("WORKSPACES_BROKER_URL", "redis://127.0.0.1:1/0")
    assert "without it `make up` starts a server of its own" in no_answer_at("WORKSPACES_BROKER_URL")
