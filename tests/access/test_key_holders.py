"""Whose access keys are: who makes them, for whom, and that no token is of anybody else."""

from dataclasses import replace

import jwt
import pytest
from flask.testing import FlaskClient

from app import create_app
from app.clock import now
from app.context import Context
from tests.access.keys import ANN, KEYS, OPERATING, keys_of, listed, made, shown
from tests.support.people import OPERATOR, announced

W = "/apis/entities/v2/workspaces"
AUTHENTICATE = "/apis/auth/authenticate"


class TestWhoMakesThem:
    def test_a_key_makes_no_keys(self, client: FlaskClient) -> None:
        """It would outlive its own revocation."""
        key = made(client)

        answer = client.post(KEYS, json={}, headers=shown(key))

        assert (answer.status_code, "log in" in answer.json["detail"]) == (403, True)
        assert [one["jti"] for one in listed(client)] == [key["jti"]]

    @pytest.mark.parametrize("caller", ["service:jobs", "service-account:ci"])
    def test_nor_does_a_service(self, client: FlaskClient, caller: str) -> None:
        for body in ({}, {"service_account_id": "ci"}):
            assert client.post(KEYS, json=body, headers=announced(caller)).status_code == 403

    def test_one_that_acts_for_a_user_makes_the_users(self, client: FlaskClient) -> None:
        key = made(client, announced("service:jobs", principal_on_behalf_of="ann"))

        assert key["principal"] == "ann"

    @pytest.mark.parametrize("scopes", ["auth:write", "platform:write", "auth:read auth:write"])
    def test_a_token_that_scopes_narrow_makes_none(self, client: FlaskClient, scopes: str) -> None:
        """A key has no scopes, so that its holder could do everything with it."""
        answer = client.post(KEYS, json={}, headers=ANN | {"X-NMP-Scopes": scopes})

        assert (answer.status_code, "makes no access keys" in answer.json["detail"]) == (403, True)
        assert listed(client) == []

    def test_one_whose_scopes_keep_nothing_from_its_bearer_does(self, client: FlaskClient) -> None:
        assert made(client, ANN | {"X-NMP-Scopes": "platform:read platform:write"})["principal"] == "ann"
        assert made(client, OPERATING | {"X-NMP-Scopes": "auth:write"})["principal"] == "the-operator"

    def test_administrators_make_those_of_service_accounts(self, client: FlaskClient) -> None:
        refused = client.post(KEYS, json={"service_account_id": "ci"}, headers=ANN)
        assert (refused.status_code, refused.json["detail"]) == (
            403,
            "Only PlatformAdmin can create service-bound Scoped Access Keys",
        )

        key = made(client, OPERATING, service_account_id="ci")

        assert (key["principal"], key["entity_type"]) == ("service-account:ci", "SERVICE_ACCOUNT")
        assert [one["jti"] for one in listed(client, OPERATING)] == [key["jti"]]
        assert listed(client, ANN) == listed(client, shown(key)) == []
        assert client.delete(f"{KEYS}/{key['jti']}", headers=shown(key)).status_code == 404
        assert client.delete(f"{KEYS}/{key['jti']}", headers=OPERATING).json["revoked"] is True


def test_a_service_account_has_the_roles_that_it_is_granted(client: FlaskClient) -> None:
    client.post(W, json={"name": "anns"}, headers=ANN)
    key = shown(made(client, OPERATING, service_account_id="ci"))
    members = f"{W}/anns/members"

    assert client.get(f"{W}/anns", headers=key).status_code == 403
    client.post(members, json={"principal": "service-account:ci", "roles": ["Viewer"]}, headers=ANN)
    assert client.get(f"{W}/anns", headers=key).status_code == 200
    client.delete(f"{members}/service-account:ci", headers=ANN)
    assert client.get(f"{W}/anns", headers=key).status_code == 403


class TestForgedTokens:
    """By somebody who has the signing file, and not the database."""

    @pytest.mark.parametrize(
        ("principal", "email"),
        [
            ("the-operator", OPERATOR),
            ("ann", OPERATOR),
            ("ann", ""),
            ("service-account:ci", "ann@example.com"),
        ],
    )
    def test_name_nobody_but_the_holder_of_a_key(
        self, client: FlaskClient, principal: str, email: str
    ) -> None:
        jti = made(client)["jti"]

        forged = keys_of(client).sign(jti, principal, email, issued_at=now(), expires_at=None)

        assert client.get(W, headers=shown({"token": forged})).status_code == 401

    def test_need_a_key_that_there_is(self, client: FlaskClient) -> None:
        forged = keys_of(client).sign(
            f"ak_{'7' * 32}", "ann", "ann@example.com", issued_at=now(), expires_at=None
        )

        assert client.get(W, headers=shown({"token": forged})).status_code == 401


def test_an_unsigned_token_is_no_access_key(context: Context, client: FlaskClient) -> None:
    """Whatever it says of its issuer: what it is, its signature decides."""
    key = made(client)
    claims = jwt.decode(key["token"], options={"verify_signature": False})
    unsigned = jwt.encode(claims | {"sub": "eve"}, None, algorithm="none")
    believing = context.settings.model_copy(update={"allow_unsigned_jwt": True})
    trusting = create_app(replace(context, settings=believing)).test_client()

    said = trusting.get(AUTHENTICATE, headers=shown({"token": unsigned})).json

    assert (said["principal"], said["token_kind"]) == ("eve", "oidc_access_token")
    assert client.get(W, headers=shown({"token": unsigned})).status_code == 401
