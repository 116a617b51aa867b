"""Whom a bearer token belongs to, as `/apis/auth/authenticate` says it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.context import Context
from tests.support.application import answering_from
from tests.support.issuer import AUDIENCE, LocalIssuer
from tests.support.people import announced

AUTHENTICATE = "/apis/auth/authenticate"
W = "/apis/entities/v2/workspaces"
METHODS = ("GET", "POST")


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer() as one:
        yield one


@pytest.fixture(params=[True, False], ids=["auth-on", "auth-off"])
def asking(request: pytest.FixtureRequest, context: Context, issuer: LocalIssuer) -> FlaskClient:
    """A client of a server that trusts the issuer, with authentication on or off."""
    settings = context.settings.model_copy(
        update={
            "auth_enabled": request.param,
            "oidc_issuer": issuer.url,
            "oidc_client_id": AUDIENCE,
            "oidc_scope_prefix": "api://",
        }
    )
    return answering_from(replace(context, settings=settings)).test_client()


def ask(client: FlaskClient, method: str, authorization: str | None) -> tuple[int, Any]:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = client.open(AUTHENTICATE, method=method, headers=headers)
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    return answer.status_code, answer.json


@pytest.mark.parametrize("method", METHODS)
def test_a_token_is_somebodys(asking: FlaskClient, issuer: LocalIssuer, method: str) -> None:
    token = issuer.token(groups=["deck", "crew"], scope="openid api://entities:read", jti="token-7")

    assert ask(asking, method, f"Bearer {token}") == (
        200,
        {
            "principal": "ann",
            "email": "ann@example.com",
            "groups": ["crew", "deck"],
            "scopes": ["openid", "entities:read"],
            "jti": "token-7",
            "token_kind": "oidc_access_token",
            "on_behalf_of": None,
            "on_behalf_of_email": None,
            "on_behalf_of_groups": [],
        },
    )


@pytest.mark.parametrize("method", METHODS)
def test_what_a_token_does_not_say_is_null(asking: FlaskClient, issuer: LocalIssuer, method: str) -> None:
    status, said = ask(asking, method, f"bearer {issuer.token(email=None)}")

    assert (status, said["email"], said["jti"], said["groups"], said["scopes"]) == (200, None, None, [], [])


@pytest.mark.parametrize("authorization", [None, "", "Basic YW5uOnB3", "Token x"])
@pytest.mark.parametrize("method", METHODS)
def test_without_a_token_it_is_missing(asking: FlaskClient, method: str, authorization: str | None) -> None:
    assert ask(asking, method, authorization) == (401, {"detail": "Missing bearer token"})


@pytest.mark.parametrize("authorization", ["Bearer", "bearer ", "Bearer a b", "Bearer rubbish"])
@pytest.mark.parametrize("method", METHODS)
def test_a_bad_token_is_invalid(asking: FlaskClient, method: str, authorization: str) -> None:
    assert ask(asking, method, authorization) == (401, {"detail": "Invalid bearer token"})


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 7},
        {"aud": "others"},
        {"iss": "https://evil.example"},
        {"sub": "service:jobs"},
        {"scope": "a.b"},
    ],
    ids=str,
)
def test_a_token_that_no_route_accepts_is_invalid(
    asking: FlaskClient, issuer: LocalIssuer, claims: dict[str, Any]
) -> None:
    assert ask(asking, "GET", f"Bearer {issuer.token(**claims)}")[0] == 401


def test_the_gateways_headers_are_no_token(client: FlaskClient) -> None:
    answer = client.get(AUTHENTICATE, headers=announced("ann"))

    assert (answer.status_code, answer.json) == (401, {"detail": "Missing bearer token"})


@pytest.mark.parametrize("authorization", ["Bearer", "Bearer  ", "bearer a b"])
def test_a_malformed_header_is_refused_by_every_route(client: FlaskClient, authorization: str) -> None:
    answer = client.get(W, headers={"Authorization": authorization})

    assert (answer.status_code, answer.json) == (401, {"detail": "Invalid bearer token"})
