"""The unmodified CLI and SDK with an access key in place of a login; they have no commands for the keys themselves."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.compat.nemo import Nemo, Programs
from tests.compat.releases import NEWEST, Release, as_parameter
from tests.support.issuer import AUDIENCE, LocalIssuer
from tests.support.people import GATEWAY_SECRET, OPERATOR, announced
from tests.support.stack import Stack

pytestmark = pytest.mark.long

KEYS = "/apis/auth/v2/access-keys"
ANN, OPERATING = announced("ann", email="ann@example.com"), announced("root", email=OPERATOR)


@pytest.fixture(scope="module")
def keyed(release: Release, tmp_path_factory: pytest.TempPathFactory, signing_file: str) -> Iterator[Stack]:
    """The product behind a gateway, with access keys."""
    assert release  # each has a product of its own
    settings = {
        "auth_enabled": True,
        "gateway_secret": GATEWAY_SECRET,
        "admin_email": OPERATOR,
        "access_keys_enabled": True,
        "access_key_signing_file": signing_file,
    }
    with Stack(tmp_path_factory.mktemp("keyed"), parts=["web"], **settings) as stack:
        yield stack


def test_a_key_takes_the_place_of_a_login_until_it_is_revoked(
    programs: Programs, keyed: Stack, tmp_path: Path
) -> None:
    with httpx.Client(base_url=keyed.api_url) as http:

        def made(by: dict[str, str], **body: Any) -> dict[str, Any]:
            key: dict[str, Any] = http.post(KEYS, json=body, headers=by).raise_for_status().json()
            return key

        anns, bots = made(ANN, name="ci"), made(OPERATING, service_account_id="bot")
        ann = Nemo(programs, home=tmp_path, base_url=keyed.api_url, access_token=anns["token"])
        bot = replace(ann, access_token=bots["token"])

        assert ann.answer("workspaces", "create", "anns-team")["created_by"] == "ann"
        assert "Forbidden" in bot.refused("workspaces", "get", "anns-team")
        ann.answer(
            *("workspaces", "members", "create", "--workspace", "anns-team"),
            *("--principal", "service-account:bot", "--roles", "Editor"),
        )
        project = bot.answer(
            "projects", "create", "alpha", "--workspace", "anns-team", "--description", "of a bot"
        )
        assert project["name"] == "alpha"

        http.delete(f"{KEYS}/{anns['jti']}", headers=ANN).raise_for_status()
        assert "access key is revoked" in ann.refused("workspaces", "list")
        assert bot.answer("workspaces", "get", "anns-team")["name"] == "anns-team"


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer() as one:
        yield one


@pytest.fixture(scope="module")
def trusting(
    release: Release, tmp_path_factory: pytest.TempPathFactory, signing_file: str, issuer: LocalIssuer
) -> Iterator[Stack]:
    """The product believing the tokens of an issuer, with access keys."""
    assert release
    settings = {
        "auth_enabled": True,
        "oidc_issuer": issuer.url,
        "oidc_client_id": AUDIENCE,
        "access_keys_enabled": True,
        "access_key_signing_file": signing_file,
    }
    with Stack(tmp_path_factory.mktemp("trusting"), parts=["web"], **settings) as stack:
        yield stack


@pytest.mark.parametrize("release", [as_parameter(NEWEST)], indirect=True, scope="session")
def test_keys_live_and_die_by_the_cli(
    programs: Programs, trusting: Stack, tmp_path: Path, issuer: LocalIssuer
) -> None:
    login = issuer.token(sub="ann", email="ann@example.com")
    nemo = Nemo(programs, home=tmp_path, base_url=trusting.api_url, access_token=login)
    keys = ("auth", "access-keys")

    made = nemo.cli(*keys, "create", "--name", "ci", "--expires-in", "3600")
    assert made.returncode == 0, made.stdout + made.stderr
    [token] = re.findall(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "".join(made.stdout.split()))
    jti = jwt.decode(token, options={"verify_signature": False})["jti"]
    program = replace(nemo, access_token=token)
    assert program.answer("workspaces", "get", "default")["name"] == "default"
    listed = nemo.cli(*keys, "list")
    assert (listed.returncode, jti in listed.stdout + listed.stderr) == (0, True)

    assert nemo.cli(*keys, "suspend", jti).returncode == 0
    assert "suspended" in program.refused("workspaces", "get", "default")
    assert nemo.cli(*keys, "unsuspend", jti).returncode == 0
    assert program.answer("workspaces", "get", "default")["name"] == "default"
    assert nemo.cli(*keys, "revoke", jti).returncode == 0
    assert "revoked" in program.refused("workspaces", "get", "default")
