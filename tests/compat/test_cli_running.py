"""Jobs and deployments by the peer's CLI: what it says of them, and what the process table and the ports say."""

import json
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from devstack.processes import port_is_free
from tests.compat.nemo import Nemo
from tests.support.processes import FEWEST, NewWord, living, stubborn, stubborn_server
from tests.support.stack import Stack

DELETED = "✓ Deleted successfully"


class Cli:
    """The command line of somebody at work in one workspace; to wait for something, plain HTTP does."""

    def __init__(self, nemo: Nemo, workspace: str, http: httpx.Client) -> None:
        self._nemo, self._within = nemo, ("--workspace", workspace)
        self._http, self._jobs = http, f"/apis/jobs/v2/workspaces/{workspace}/jobs"

    def answer(self, *arguments: str | Path) -> dict:
        return self._nemo.answer(*arguments, *self._within)

    def say(self, *arguments: str | Path) -> str:
        """What a command that must succeed prints."""
        done = self._nemo.cli(*arguments, *self._within)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def refused(self, *arguments: str | Path) -> str:
        """What a command prints that the server must refuse."""
        return self._nemo.refused(*arguments, *self._within)

    def submit(self, name: str, script: str) -> dict:
        step = {"name": "main", "executor": {"provider": "subprocess", "command": ["sh", "-c", script]}}
        return self.answer(
            "jobs", "create", name, "--source", "tests", "--spec", "{}",
            "--platform-spec", json.dumps({"steps": [step]}),
        )  # fmt: skip

    def status(self, name: str) -> str:
        return self.answer("jobs", "get-status", name)["status"]

    def has(self, name: str, status: str) -> bool:
        """Whether a job has this status by now."""
        return bool(self._http.get(f"{self._jobs}/{name}").json()["status"] == status)

    def lines(self, name: str) -> int:
        """How many lines a job has printed by now."""
        return len(self._http.get(f"{self._jobs}/{name}/logs", params={"limit": 1000}).json()["data"])

    def log(self, name: str) -> list[str]:
        # Pages of two lines, so that following means to turn them.
        page = self.answer("jobs", "get-logs", name, "--limit", "2", "--all-pages")
        return [line["message"] for line in page["data"]]


@pytest.fixture
def cli(nemo: Nemo, workspace: str, http: httpx.Client) -> Cli:
    return Cli(nemo, workspace, http)


def test_a_job_that_prints_for_five_seconds_is_followed_to_its_end(cli: Cli, stack: Stack) -> None:
    """The CLI has no command that follows a log: `get-logs` is repeated."""
    created = cli.submit(
        "train",
        # For five seconds, and on a slow machine for as long as it takes the CLI to look twice.
        "i=0; while [ $i -lt 5 ] || [ ! -e seen ]; do i=$((i + 1)); echo line $i; sleep 1; done",
    )
    assert (created["name"], created["status"]) == ("train", "created")
    stack.wait_until(lambda: cli.lines("train"), "there is something to read")
    first = cli.log("train")
    stack.wait_until(lambda: cli.lines("train") > len(first), "there is more to read")
    assert len(cli.log("train")) > len(first) > 0
    assert cli.status("train") == "active"
    [directory] = stack.directories_of(created["id"])
    (directory / "seen").touch()
    stack.wait_until(lambda: cli.has("train", "completed"), "the job completes")

    assert cli.status("train") == "completed"
    log = cli.log("train")
    assert log == [f"line {number + 1}" for number in range(len(log))]
    assert len(log) >= 5
    assert log[: len(first)] == first
    of_fileset = cli.answer("files", "otlp", "logs", "query", created["fileset"], "--limit", "1000")
    assert [line["message"] for line in of_fileset["data"]] == log
    completed = cli.answer("jobs", "list", "--filter.status", "completed")
    assert [job["name"] for job in completed["data"]] == ["train"]


@pytest.mark.long
def test_of_a_cancelled_job_that_defies_sigterm_no_process_is_left(
    cli: Cli, stack: Stack, new_word: NewWord
) -> None:
    word, others = new_word(), new_word()
    cli.submit("train", stubborn(word))
    cli.submit("other", f"sleep {others}")
    stack.wait_until(lambda: len(living(word)) >= FEWEST and living(others), "both jobs run")

    cli.answer("jobs", "cancel", "train")
    stack.wait_until(lambda: cli.has("train", "cancelled"), "the job is cancelled")

    assert living(word) == []
    assert cli.status("train") == "cancelled"
    assert "not yet" in cli.log("train"), "it was not even asked"
    assert living(others) != []
    assert cli.say("jobs", "delete", "other") == DELETED
    stack.wait_until(lambda: living(others) == [], "the deleted job ends")


@pytest.mark.long
def test_a_result_is_downloaded_as_the_job_has_left_it(
    cli: Cli, stack: Stack, workspace: str, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4096
    job = cli.submit(
        "train",
        f"""{sys.executable} -c 'import os; """
        f"""open(os.environ["WORKSPACES_RESULTS_DIR"] + "/weights", "wb").write(bytes(range(256)) * 4096)'""",
    )
    stack.wait_until(lambda: cli.has("train", "completed"), "the job completes")

    assert [result["name"] for result in cli.answer("jobs", "results", "list", "train")["data"]] == [
        "weights"
    ]
    told = cli.answer("jobs", "results", "get", "weights", "--job", "train")
    assert told["artifact_url"] == f"{workspace}/{job['fileset']}#results/weights"
    cli.say("jobs", "results", "download", "weights", "--job", "train", "-o", tmp_path / "weights")

    assert (tmp_path / "weights").read_bytes() == content


@pytest.mark.long
def test_a_deployment_serves_until_it_is_deleted_and_then_nothing_of_it_runs(
    cli: Cli, stack: Stack, workspace: str, new_word: NewWord
) -> None:
    word = new_word()
    executor = {
        "gpu": 0,
        "health_check_path": "/",
        "override_config": {"command": stubborn_server(word)},
    }
    deployment, config = ("inference", "deployments"), ("inference", "deployment-configs")
    cli.answer(
        *config, "create", "server", "--engine", "generic", "--model-spec", "{}",
        "--executor-config", json.dumps(executor),
    )  # fmt: skip
    assert cli.answer(*config, "get", "server")["name"] == "server"

    created = cli.answer(*deployment, "create", "serving", "--config", "server")
    assert (created["status"], created["config"]) == ("CREATED", "server")
    waited = cli.say("wait", "inference", "deployment", "serving", "--status", "READY", "--timeout", "60")
    assert "Gateway is ready!" in waited
    told = cli.answer(*deployment, "get", "serving")["status_message"]
    [address] = re.findall(r"http://\S+", told)
    assert httpx.get(address).status_code == 200
    port = urlsplit(address).port
    assert port
    assert not port_is_free(port)
    assert len(living(word)) >= 3
    assert "still reference it" in cli.refused(*config, "delete", "server")

    assert cli.say(*deployment, "delete", "serving") == DELETED
    stack.wait_until(lambda: living(word) == [], "the deployment is torn down")
    # The peer's documentation goes on in this way; the deployment has to be found no more.
    cli.say("wait", "inference", "deployment", "serving", "--status", "DELETED", "--timeout", "60")
    assert port_is_free(port)
    assert cli.say(*config, "delete", "server") == DELETED
    assert "not found" in cli.refused(*config, "get", "server")
