"""The five Python snippets of the peer's page about workspaces, run as a reader would run them."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.compat.nemo import Nemo

SNIPPETS = Path(__file__).parent / "snippets"
WORKSPACES = "/apis/entities/v2/workspaces"


@pytest.fixture
def run(nemo: Nemo) -> Callable[[str], str]:
    """Runs a snippet, which must succeed, and returns what it printed."""

    def run(name: str) -> str:
        done = nemo.run(SNIPPETS / f"{name}.py")
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.all_releases
def test_the_documented_snippets_do_what_the_page_says(run: Callable[[str], str], http: httpx.Client) -> None:
    assert http.get(f"{WORKSPACES}/ml-team").status_code == 404

    run("create")
    created = http.get(f"{WORKSPACES}/ml-team").json()
    assert created["description"] == "Machine Learning Team workspace"

    printed = run("list").splitlines()
    assert "ml-team: Machine Learning Team workspace" in printed
    assert {line.partition(":")[0] for line in printed} >= {"default", "system"}

    run("retrieve")

    run("update")
    updated = http.get(f"{WORKSPACES}/ml-team").json()
    assert updated["description"] == "Updated: ML Team workspace for model development"
    assert updated["id"] == created["id"]
    assert updated["updated_at"] > created["updated_at"]

    run("delete")
    assert http.get(f"{WORKSPACES}/ml-team").status_code == 404
    assert "ml-team" not in [one["name"] for one in http.get(WORKSPACES).json()["data"]]

    run("create")
    assert http.get(f"{WORKSPACES}/ml-team").json()["id"] != created["id"]
    run("delete")


def test_a_snippet_that_asks_for_what_is_not_there_fails(nemo: Nemo, http: httpx.Client) -> None:
    """Guards the test above: a snippet's exit status does tell whether the server agreed."""
    assert http.get(f"{WORKSPACES}/ml-team").status_code == 404

    done = nemo.run(SNIPPETS / "retrieve.py")

    assert done.returncode == 1
    assert "NotFoundError" in done.stderr
    assert "Workspace 'ml-team' not found" in done.stderr
