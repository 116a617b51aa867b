"""The unmodified CLI and SDK with an access key in place of a login; they have no commands for the keys themselves."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compat.nemo import Nemo, Programs
from tests.support.people import GATEWAY_SECRET, OPERATOR, announced
from tests.support.stack import Stack

pytestmark = pytest.mark.long

KEYS = "/apis/auth/v2/access-keys"
ANN, OPERATING = announced("ann", email="ann@example.com"), announced("root", email=OPERATOR)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, signing_file: str) -> Iterator[Stack]:
    """The product behind a gateway, with access keys."""
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
        assert "Forbidden" in bot.cli("workspaces", "get", "anns-team").stderr
        ann.answer(
            *("workspaces", "members", "create", "--workspace", "anns-team"),
            *("--principal", "service-account:bot", "--roles", "Editor"),
        )
        project = bot.answer(
            "projects", "create", "alpha", "--workspace", "anns-team", "--description", "of a bot"
        )
        assert project["name"] == "alpha"

        http.delete(f"{KEYS}/{anns['jti']}", headers=ANN).raise_for_status()
        refused = ann.cli("workspaces", "list")
        assert refused.returncode == 1
        assert "access key is revoked" in " ".join((refused.stdout + refused.stderr).split())
        assert bot.answer("workspaces", "get", "anns-team")["name"] == "anns-team"
