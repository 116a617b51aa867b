"""The peer's CLI, as somebody types it."""

from pathlib import Path
from subprocess import CompletedProcess

import httpx
import pytest

from tests.compat.nemo import Nemo
from tests.support.stack import Stack

DELETED = "✓ Deleted successfully"


def names(page: dict) -> list[str]:
    return [one["name"] for one in page["data"]]


def said(done: CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def test_workspaces_live_and_die_by_the_cli(nemo: Nemo, http: httpx.Client) -> None:
    path = "/apis/entities/v2/workspaces/cli-team"

    created = nemo.answer("workspaces", "create", "cli-team", "--description", "first")
    assert created["name"] == "cli-team"
    assert http.get(path).json() == {**created, "description": "first"}

    assert names(nemo.answer("workspaces", "list", "--filter", 'name:"cli-team"')) == ["cli-team"]
    assert nemo.answer("workspaces", "get", "cli-team") == created

    assert nemo.answer("workspaces", "update", "cli-team", "--description", "second")["id"] == created["id"]
    assert http.get(path).json()["description"] == "second"

    deleted = nemo.cli("workspaces", "delete", "cli-team")
    assert (deleted.returncode, deleted.stdout.strip()) == (0, DELETED)
    assert http.get(path).status_code == 404

    assert "Workspace 'cli-team' not found" in nemo.refused("workspaces", "get", "cli-team")


@pytest.mark.long
def test_the_cli_reports_a_name_that_is_taken_and_accepts_exist_ok(nemo: Nemo, workspace: str) -> None:
    assert f"Workspace '{workspace}' already exists" in nemo.refused("workspaces", "create", workspace)

    assert nemo.answer("workspaces", "create", workspace, "--exist-ok")["name"] == workspace


def test_the_cli_says_what_is_wrong_with_a_name(nemo: Nemo) -> None:
    assert "lowercase" in nemo.refused("workspaces", "create", "No--Good")


@pytest.mark.long
def test_the_cli_prints_every_page_in_the_format_asked_for(
    nemo: Nemo, http: httpx.Client, workspace: str
) -> None:
    for number in range(3):
        body = {"name": f"project-{number}"}
        assert http.post(f"/apis/entities/v2/workspaces/{workspace}/projects", json=body).status_code == 201
    listing = ("projects", "list", "--workspace", workspace)

    one_page = nemo.answer(*listing, "--page-size", "2", "--sort", "name")
    assert names(one_page) == ["project-0", "project-1"]
    assert one_page["pagination"]["total_results"] == 3

    every_page = nemo.answer(*listing, "--page-size", "2", "--sort", "name", "--all-pages")
    assert names(every_page) == ["project-0", "project-1", "project-2"]

    table = nemo.cli(*listing, "-f", "table")
    assert table.returncode == 0, table.stderr
    assert "project-2" in table.stdout


@pytest.mark.long
def test_projects_live_and_die_by_the_cli(nemo: Nemo, http: httpx.Client, workspace: str) -> None:
    within = ("--workspace", workspace)
    path = f"/apis/entities/v2/workspaces/{workspace}/projects/apollo"

    created = nemo.answer("projects", "create", "apollo", *within, "--description", "moon")
    assert http.get(path).json() == created
    assert nemo.answer("projects", "get", "apollo", *within) == created

    nemo.answer("projects", "update", "apollo", *within, "--description", "mars")
    assert http.get(path).json()["description"] == "mars"

    deleted = nemo.cli("projects", "delete", "apollo", *within)
    assert (deleted.returncode, deleted.stdout.strip()) == (0, DELETED)
    assert http.get(path).status_code == 404


@pytest.mark.long
def test_secrets_live_and_die_by_the_cli(
    nemo: Nemo, http: httpx.Client, workspace: str, tmp_path: Path
) -> None:
    within = ("--workspace", workspace)
    path = f"/apis/secrets/v2/workspaces/{workspace}/secrets/hf-token"
    (tmp_path / "value").write_text("open sesame")

    created = nemo.answer("secrets", "create", "hf-token", *within, "--value", "x", "--description", "d")
    assert http.get(path).json() == created
    assert nemo.answer("secrets", "get", "hf-token", *within) == created
    assert names(nemo.answer("secrets", "list", *within)) == ["hf-token"]

    nemo.answer("secrets", "update", "hf-token", *within, "--from-file", tmp_path / "value")
    assert nemo.answer("secrets", "access", "hf-token", *within)["value"] == "open sesame"
    assert nemo.answer("secrets", "admin", "rotate-encryption-keys")["success"] is True

    deleted = nemo.cli("secrets", "delete", "hf-token", *within)
    assert (deleted.returncode, deleted.stdout.strip()) == (0, DELETED)
    assert http.get(path).status_code == 404


@pytest.mark.long
def test_members_come_and_go_by_the_cli(nemo: Nemo, http: httpx.Client, workspace: str) -> None:
    within = ("--workspace", workspace)
    path = f"/apis/entities/v2/workspaces/{workspace}/members"

    def members() -> dict[str, set[str]]:
        return {one["principal"]: set(one["roles"]) for one in http.get(path).json()["data"]}

    before = members()
    added = nemo.answer(
        "workspaces", "members", "create", *within,
        "--principal", "ann@example.com", "--roles", "Viewer", "--roles", "Editor",
    )  # fmt: skip
    assert (added["principal"], set(added["roles"])) == ("ann@example.com", {"Viewer", "Editor"})
    assert members() == {**before, "ann@example.com": {"Viewer", "Editor"}}

    listed = nemo.answer("workspaces", "members", "list", *within)
    assert {one["principal"] for one in listed["data"]} == {*before, "ann@example.com"}

    nemo.answer("workspaces", "members", "update", "ann@example.com", *within, "--roles", "Viewer")
    assert members() == {**before, "ann@example.com": {"Viewer"}}

    removed = nemo.cli("workspaces", "members", "delete", "ann@example.com", *within)
    assert (removed.returncode, removed.stdout.strip()) == (0, DELETED)
    assert members() == before

    again = nemo.refused("workspaces", "members", "delete", "ann@example.com", *within)
    assert f"Member 'ann@example.com' not found in workspace '{workspace}'" in again


@pytest.mark.long
def test_files_travel_both_ways_by_the_cli(
    nemo: Nemo, http: httpx.Client, workspace: str, tmp_path: Path
) -> None:
    within = ("--workspace", workspace)
    path = f"/apis/files/v2/workspaces/{workspace}/filesets"
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_bytes(b"alpha")
    (source / "deep" / "b ü.bin").write_bytes(bytes(range(256)) * 40)

    assert (
        nemo.answer("files", "filesets", "create", "corpus", *within, "--purpose", "dataset")["purpose"]
        == "dataset"
    )
    uploaded = nemo.cli("files", "upload", f"{source}/", "corpus", *within)
    assert uploaded.returncode == 0, uploaded.stderr
    assert http.get(f"{path}/corpus/-/deep/b ü.bin").content == bytes(range(256)) * 40

    listed = nemo.answer("files", "list", "corpus", *within)
    assert {one["path"]: one["size"] for one in listed} == {"a.txt": 5, "deep/b ü.bin": 10240}

    target = tmp_path / "target"
    downloaded = nemo.cli("files", "download", "corpus", *within, "-o", f"{target}/")
    assert downloaded.returncode == 0, downloaded.stderr
    assert (target / "a.txt").read_bytes() == b"alpha"
    assert (target / "deep" / "b ü.bin").read_bytes() == bytes(range(256)) * 40

    assert nemo.cli("files", "delete", "corpus", *within, "--remote-path", "a.txt").returncode == 0
    assert [one["path"] for one in http.get(f"{path}/corpus/files").json()["data"]] == ["deep/b ü.bin"]

    assert nemo.cli("files", "filesets", "delete", "corpus", *within).returncode == 0
    assert http.get(f"{path}/corpus").status_code == 404

    assert nemo.cli("files", "upload", source / "a.txt", "corpus", *within).returncode in (1, 3)


def test_cluster_info_finds_the_server_healthy(nemo: Nemo, http: httpx.Client, stack: Stack) -> None:
    stack.wait_until(lambda: http.get("/status").json()["status"] == "healthy", "the first sweep")

    told = nemo.cli("cluster-info")

    assert told.returncode == 0
    assert "✓ Status: healthy" in said(told)


def test_a_wrong_command_line_is_told_apart_from_a_refusal(nemo: Nemo) -> None:
    assert nemo.cli("workspaces", "list", "--no-such-option").returncode == 2
