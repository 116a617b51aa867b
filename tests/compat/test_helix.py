"""Runs the tests in `helix/`, which speak to our server through the typed clients of NeMo Helix."""

import httpx
import pytest

from tests.compat.nemo import HERE, Nemo
from tests.compat.releases import HELIX, as_parameter

SUITE = HERE / "helix"


@pytest.mark.parametrize("release", [as_parameter(HELIX)], indirect=True, scope="session")
def test_its_typed_clients_work_against_our_server(nemo: Nemo) -> None:
    files = nemo.home / "files"
    done = nemo.run(
        "-m", "pytest", "-c", SUITE / "pytest.ini", "--basetemp", files, SUITE / "test_clients.py"
    )

    if done.returncode != 0:
        pytest.fail(f"{done.stdout}{done.stderr}", pytrace=False)


@pytest.mark.long
@pytest.mark.parametrize("release", [as_parameter(HELIX)], indirect=True, scope="session")
def test_workspaces_live_and_die_by_its_command(nemo: Nemo, http: httpx.Client) -> None:
    path = "/apis/entities/v2/workspaces/helix-team"

    created = nemo.answer("workspaces", "create", "helix-team", "--description", "first")
    assert http.get(path).json() == {**created, "description": "first"}
    nemo.answer("workspaces", "update", "helix-team", "--description", "second")
    assert nemo.answer("workspaces", "get", "helix-team")["description"] == "second"

    assert nemo.cli("workspaces", "delete", "helix-team").returncode == 0
    assert "not found" in nemo.refused("workspaces", "get", "helix-team")
