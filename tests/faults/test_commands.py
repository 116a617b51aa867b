"""The command line on a running product: `--wait` says in its exit status what became of a deletion."""

import json
import os
import signal
import subprocess
from pathlib import Path

from tests.faults.test_status import refusing, unmounted, without, without_broker
from tests.faults.world import World
from tests.support.deadlines import DEADLINE_S
from tests.support.preloaded import Preloaded, run_preloaded
from tests.support.stack import CHECKOUT


def typed(world: World, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command as an operator elsewhere types it, who has nothing but the address of the server."""
    return run_preloaded("python", "-m", "app.cli", *arguments, env=elsewhere(world), cwd=CHECKOUT)


def elsewhere(world: World) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("WORKSPACES_")}
    return {**known, "WORKSPACES_SERVER": world.stack.api_url}


def typed_there(world: World, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command with `--direct`, with the environment of the workers."""
    command = ("python", "-m", "app.cli", *arguments, "--direct")
    return run_preloaded(*command, env=world.stack._environment, cwd=CHECKOUT)


def test_a_deletion_that_is_done_is_0(world: World) -> None:
    tenant = world.fill()

    ended = typed(world, "workspace", "delete", tenant.name, "--yes", "--wait", "-o", "json")

    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert (report["state"], report["workspace_id"]) == ("DONE", str(tenant.id))
    assert ended.stderr.splitlines()[-1].startswith(f"{tenant.name} is gone: ")
    assert world.left_of(tenant.id) == []


def test_a_deletion_that_is_failed_is_5_and_the_command_that_it_names_helps(world: World) -> None:
    tenant = world.fill(each=1)

    with unmounted(world):
        ended = typed(world, "workspace", "delete", tenant.name, "--yes", "--wait", "--timeout", "5m")

    assert (ended.returncode, ended.stdout) == (5, "")
    assert f"{tenant.name} is FAILED: " in ended.stderr
    assert "StoreAbsent" in ended.stderr
    [remedy] = [line for line in ended.stderr.splitlines() if "workspaces deletion retry " in line]
    retry = remedy[remedy.index("deletion retry ") :].split()
    assert typed(world, *retry).returncode in {0, 1}  # 1: a re-attempt was quicker
    waited = typed(world, "deletion", "wait", retry[-1], "--timeout", "5m")
    assert waited.returncode == 0, waited.stderr
    assert world.left_of(tenant.id) == []


def test_a_deletion_that_outlasts_the_timeout_is_6_and_goes_on(world: World) -> None:
    tenant = world.fill(each=1)
    assert typed(world, "cleanup", "pause", "-o", "name").stdout == "True\n"

    ended = typed(world, "workspace", "delete", tenant.name, "--yes", "--wait", "--timeout", "1s")

    assert (ended.returncode, ended.stdout) == (6, "")
    [again] = [line for line in ended.stderr.splitlines() if "workspaces deletion wait " in line]
    assert typed(world, "cleanup", "resume", "-o", "name").stdout == "False\n"
    waited = typed(world, *again[again.index("deletion wait ") :].split())
    assert waited.returncode == 0, waited.stderr
    assert world.left_of(tenant.id) == []


def test_an_interrupted_wait_is_130_and_the_deletion_goes_on(world: World, tmp_path: Path) -> None:
    tenant = world.fill(each=1)
    world.pause(paused=True)
    deletion = world.delete(tenant.name)
    output, errors = tmp_path / "stdout", tmp_path / "stderr"
    command = ["python", "-m", "app.cli", "deletion", "wait", deletion]
    waiting = Preloaded(command, env=elsewhere(world), cwd=CHECKOUT, output=output, errors=errors)
    world.stack.wait_until(lambda: errors.exists() and errors.read_text(), "it waits")

    waiting.send_signal(signal.SIGINT)

    assert waiting.wait(DEADLINE_S) == 130
    assert "Traceback" not in errors.read_text()
    world.pause(paused=False)
    world.wait_for_state(deletion, "DONE")


def test_a_database_that_goes_while_it_is_waited_with_is_waited_for(world: World, tmp_path: Path) -> None:
    tenant = world.fill(each=1)
    world.pause(paused=True)
    deletion = world.delete(tenant.name)
    output, errors = tmp_path / "stdout", tmp_path / "stderr"
    command = ["python", "-m", "app.cli", "deletion", "wait", deletion, "--direct", "--timeout", "1h"]
    waiting = Preloaded(command, env=world.stack._environment, cwd=CHECKOUT, output=output, errors=errors)
    world.stack.wait_until(lambda: errors.exists() and errors.read_text(), "it waits")

    with refusing(world):
        world.stack.wait_until(lambda: "(asking again)" in errors.read_text(), "it says that nobody answers")
    world.stack.wait_until(lambda: world.stack.client.get("/health/ready").is_success, "all is back")
    world.pause(paused=False)

    assert waiting.wait(2 * DEADLINE_S) == 0
    assert "WORKSPACES_DATABASE_URL does not answer" in errors.read_text()


def test_without_the_server_the_database_is_enough(world: World) -> None:
    tenant = world.fill(each=1)

    with without("web")(world):
        away = typed(world, "workspace", "list")
        ended = typed_there(world, "workspace", "delete", tenant.name, "--yes", "--wait")

    assert (away.returncode, away.stdout, len(away.stderr.splitlines())) == (1, "", 1)
    assert "--direct" in away.stderr
    assert ended.returncode == 0, ended.stderr
    assert world.left_of(tenant.id) == []


def test_a_command_that_ends_at_once_has_told_the_workers(world: World) -> None:
    tenant = world.fill(each=1)

    with without("beat")(world):  # no sweep makes a lost message good
        begun = typed_there(world, "workspace", "delete", tenant.name, "--yes", "-o", "name")
        world.wait_for_state(begun.stdout.strip(), "DONE")

    assert world.left_of(tenant.id) == []


def test_without_the_broker_a_deletion_is_accepted_and_made_good_afterwards(world: World) -> None:
    tenant = world.fill(each=1)

    with without_broker(world):
        begun = typed_there(world, "workspace", "delete", tenant.name, "--yes", "-o", "name")
        doctor = run_preloaded(
            "python", "-m", "app.cli", "doctor", "-o", "json", env=world.stack._environment, cwd=CHECKOUT
        )

    assert begun.returncode == 0, begun.stderr
    assert doctor.returncode == 1
    assert "broker" in {one["name"] for one in json.loads(doctor.stdout) if not one["ok"]}
    world.wait_for_state(begun.stdout.strip(), "DONE")
    assert world.left_of(tenant.id) == []
