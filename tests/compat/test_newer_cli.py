"""What the CLI of 0.6.0 has learned since 0.3.0, against our server."""

import json
import sys
from pathlib import Path

import httpx
import pytest

from tests.compat.nemo import Nemo
from tests.compat.releases import NEWEST, as_parameter

pytestmark = [
    pytest.mark.long,
    pytest.mark.parametrize("release", [as_parameter(NEWEST)], indirect=True, scope="session"),
]


def platform_spec(script: str, **step: object) -> str:
    executor = {"provider": "subprocess", "command": ["sh", "-c", script]}
    return json.dumps({"steps": [{"name": "main", "executor": executor, **step}]})


def succeeded(nemo: Nemo, *arguments: str | Path) -> str:
    """What a command that must succeed prints."""
    done = nemo.cli(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def create(nemo: Nemo, workspace: str, name: str, script: str, *more: str) -> str:
    return succeeded(
        nemo, "jobs", "create", name, "--workspace", workspace, "--source", "tests", "--spec", "{}",
        "--platform-spec", platform_spec(script), *more,
    )  # fmt: skip


def test_a_job_is_waited_for_when_it_is_created(nemo: Nemo, workspace: str, http: httpx.Client) -> None:
    create(nemo, workspace, "train", "sleep 1; echo done", "--wait", "--timeout", "120")

    job = http.get(f"/apis/jobs/v2/workspaces/{workspace}/jobs/train").json()
    assert job["status"] == "completed"


def test_a_job_is_watched_and_each_line_is_shown_once(nemo: Nemo, workspace: str) -> None:
    create(
        nemo, workspace, "train", "i=0; while [ $i -lt 30 ]; do i=$((i + 1)); echo line $i; sleep 0.1; done"
    )

    watched = nemo.cli(
        "jobs", "watch", "train", "--workspace", workspace, "--poll-interval", "1", "--timeout", "120"
    )

    assert watched.returncode == 0, watched.stdout + watched.stderr
    printed = watched.stdout + watched.stderr
    assert [printed.count(f"line {number + 1}\n") for number in range(30)] == [1] * 30


def test_the_newest_lines_of_a_log_are_shown(nemo: Nemo, workspace: str) -> None:
    create(nemo, workspace, "train", "for i in 1 2 3 4 5; do echo line $i; done", "--wait")

    page = nemo.answer("jobs", "get-logs", "train", "--workspace", workspace, "--tail", "2")

    assert [line["message"] for line in page["data"]] == ["line 4", "line 5"]


def test_a_fileset_without_a_source_is_not_refreshed(nemo: Nemo, workspace: str) -> None:
    nemo.answer("files", "filesets", "create", "corpus", "--workspace", workspace)

    refused = nemo.refused("files", "filesets", "refresh", "corpus", "--workspace", workspace)

    assert "does not track a revision that can be refreshed" in refused


def test_a_deployment_is_waited_for_until_the_gateway_would_lead_to_it(nemo: Nemo, workspace: str) -> None:
    command = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
    executor = {"gpu": 0, "health_check_path": "/", "override_config": {"command": command}}
    within = ("--workspace", workspace)
    nemo.answer(
        "inference", "deployment-configs", "create", "server", *within, "--engine", "generic",
        "--model-spec", "{}", "--executor-config", json.dumps(executor),
    )  # fmt: skip
    nemo.answer("inference", "deployments", "create", "serving", *within, "--config", "server")

    succeeded(
        nemo, "wait", "inference", "deployment", "serving", *within, "--status", "READY", "--timeout", "120"
    )

    succeeded(nemo, "inference", "deployments", "delete", "serving", *within)
    succeeded(
        nemo, "wait", "inference", "deployment", "serving", *within, "--status", "DELETED", "--timeout", "120"
    )


def test_results_go_to_the_fileset_that_a_job_names(nemo: Nemo, workspace: str, http: httpx.Client) -> None:
    nemo.answer("files", "filesets", "create", "shared", "--workspace", workspace)

    create(
        nemo, workspace, "train", "echo 7 >$WORKSPACES_RESULTS_DIR/weights",
        "--output-location", "shared", "--wait",
    )  # fmt: skip

    files = http.get(f"/apis/files/v2/workspaces/{workspace}/filesets/shared/files").json()["data"]
    assert [one["path"].startswith("jobs/train/") for one in files] == [True]
    succeeded(nemo, "jobs", "delete", "train", "--workspace", workspace)
    assert http.get(f"/apis/files/v2/workspaces/{workspace}/filesets/shared/files").json()["data"] == files


def test_the_cli_explains_that_there_are_no_access_keys(nemo: Nemo) -> None:
    refused = nemo.cli("auth", "access-keys", "list")

    assert refused.returncode != 0
    assert "not enabled" in " ".join((refused.stdout + refused.stderr).split())
