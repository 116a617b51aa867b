"""The unmodified CLI and SDK as three users, against a server that asks who they are."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compat.nemo import Nemo, Programs
from tests.compat.releases import Release
from tests.support.stack import Stack

pytestmark = pytest.mark.long

OPERATOR = "operator@example.com"
ANN, BOB, EVE = "ann@example.com", "bob@example.com", "eve@example.com"


@pytest.fixture(scope="module")
def guarded(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The product with authentication on, believing the tokens that `nemo auth login --unsigned-token` makes."""
    assert release  # each has a product of its own
    settings = {"auth_enabled": True, "allow_unsigned_jwt": True, "admin_email": OPERATOR}
    with Stack(
        tmp_path_factory.mktemp("guarded"), parts=["web", "worker", "maintenance", "beat"], **settings
    ) as stack:
        yield stack


LogIn = Callable[..., Nemo]


@pytest.fixture
def log_in(programs: Programs, guarded: Stack, tmp_path: Path) -> LogIn:
    """Somebody's CLI, logged in, in a home of its own."""

    def do(email: str, *options: str) -> Nemo:
        home = tmp_path / email
        home.mkdir()
        nemo = Nemo(programs, home=home, base_url=guarded.api_url)
        login = nemo.cli(
            "auth", "login", "--base-url", guarded.api_url, "--unsigned-token", "--email", email, *options
        )
        assert login.returncode == 0, login.stdout + login.stderr
        return nemo

    return do


def names(nemo: Nemo) -> set[str]:
    return {one["name"] for one in nemo.answer("workspaces", "list")["data"]}


def test_three_users_share_a_workspace_as_far_as_their_roles_go(log_in: LogIn) -> None:
    ann, bob, eve = log_in(ANN), log_in(BOB), log_in(EVE, "--group", "crew")
    members = ("workspaces", "members")

    made = ann.answer("workspaces", "create", "anns-team", "--description", "first")

    assert made["created_by"] == ANN
    assert names(ann) == {"anns-team", "default", "system"}
    assert names(bob) == names(eve) == {"default", "system"}
    assert "Forbidden" in bob.refused("workspaces", "get", "anns-team")
    assert "Forbidden" in bob.refused("workspaces", "delete", "anns-team")

    ann.answer(*members, "create", "--workspace", "anns-team", "--principal", BOB, "--roles", "Viewer")
    ann.answer(*members, "create", "--workspace", "anns-team", "--principal", "crew", "--roles", "Editor")

    assert bob.answer("workspaces", "get", "anns-team") == made
    listed = bob.answer(*members, "list", "--workspace", "anns-team")["data"]
    assert {(one["principal"], *one["roles"]) for one in listed} == {
        (ANN, "Admin"), (BOB, "Viewer"), ("crew", "Editor")
    }  # fmt: skip
    new_project = ("projects", "create", "alpha", "--workspace", "anns-team", "--description", "d")
    assert "needs Editor or Admin; you are Viewer" in bob.refused(*new_project)
    assert eve.answer(*new_project)["name"] == "alpha"
    assert "needs Admin; you are Editor" in eve.refused(
        "workspaces", "update", "anns-team", "--description", "x"
    )

    ann.answer(*members, "update", BOB, "--workspace", "anns-team", "--roles", "Editor")
    bob.answer("projects", "create", "beta", "--workspace", "anns-team", "--description", "d")
    assert "last Admin" in ann.refused(*members, "delete", ANN, "--workspace", "anns-team")
    assert ann.cli(*members, "delete", BOB, "--workspace", "anns-team").returncode == 0
    assert "Forbidden" in bob.refused("workspaces", "get", "anns-team")

    assert ann.cli("workspaces", "delete", "anns-team").returncode == 0
    assert bob.answer("workspaces", "create", "anns-team")["id"] != made["id"]
    assert "Forbidden" in ann.refused("workspaces", "get", "anns-team")


def test_nobody_gets_in_without_a_login_or_with_an_old_one(
    programs: Programs, guarded: Stack, tmp_path: Path, log_in: LogIn
) -> None:
    stranger = Nemo(programs, home=tmp_path, base_url=guarded.api_url)

    assert "Unauthorized" in stranger.refused("workspaces", "list")
    late = log_in("late@example.com", "--expires-in", "-60")
    assert late.cli("workspaces", "list").returncode != 0


def test_an_administrator_of_the_platform_sees_everything(log_in: LogIn) -> None:
    log_in(EVE).answer("workspaces", "create", "eves-team")

    assert "eves-team" in names(log_in(OPERATOR))


def test_the_sdk_maps_refusals_to_its_own_errors(log_in: LogIn) -> None:
    ann = log_in(ANN)
    script = ann.home / "ask.py"
    script.write_text(
        "import os\n"
        "import nemo_platform as nemo\n"
        "from nemo_platform import NeMoPlatform\n"
        "base_url = os.environ['NMP_BASE_URL']\n"
        "for headers, error in (({}, nemo.AuthenticationError),\n"
        "                       ({'X-NMP-Principal-Id': 'service:x'}, nemo.AuthenticationError)):\n"
        "    try:\n"
        "        NeMoPlatform(base_url=base_url, default_headers=headers, max_retries=0).workspaces.list()\n"
        "        raise SystemExit(f'{headers} got in')\n"
        "    except error as refused:\n"
        "        print(refused.status_code)\n"
    )

    done = ann.run(script)

    assert (done.returncode, done.stdout.split()) == (0, ["401", "401"]), done.stdout + done.stderr
