"""The discovery document, which clients read before they log in."""

from dataclasses import replace

from flask.testing import FlaskClient

from app import create_app
from app.config import Settings
from app.context import Context
from tests.support.issuer import AUDIENCE, LocalIssuer

DISCOVERY = "/apis/auth/discovery"


def client_of(context: Context, settings: Settings) -> FlaskClient:
    return create_app(replace(context, settings=settings)).test_client()


def test_without_an_issuer_it_says_only_whether_one_has_to_log_in(context: Context) -> None:
    off = context.settings.model_copy(update={"auth_enabled": False})

    assert client_of(context, context.settings).get(DISCOVERY).json == {"auth_enabled": True, "oidc": None}
    assert client_of(context, off).get(DISCOVERY).json == {"auth_enabled": False, "oidc": None}


def test_it_names_the_issuer_and_its_endpoints(context: Context) -> None:
    with LocalIssuer() as issuer:
        settings = context.settings.model_copy(
            update={"oidc_issuer": issuer.url, "oidc_client_id": AUDIENCE, "oidc_scope_prefix": "api://"}
        )
        document = client_of(context, settings).get(DISCOVERY).json

    assert document == {
        "auth_enabled": True,
        "oidc": {
            "issuer": issuer.url,
            "client_id": AUDIENCE,
            "default_scopes": "openid profile email",
            "scope_prefix": "api://",
            "token_endpoint": f"{issuer.url}/token",
            "device_authorization_endpoint": f"{issuer.url}/device",
        },
    }


def test_it_answers_while_the_issuer_does_not(context: Context) -> None:
    with LocalIssuer(status=500) as issuer:
        settings = context.settings.model_copy(update={"oidc_issuer": issuer.url, "oidc_client_id": AUDIENCE})
        answer = client_of(context, settings).get(DISCOVERY)

    assert answer.status_code == 200
    assert answer.json["oidc"]["issuer"] == issuer.url
    assert "token_endpoint" not in answer.json["oidc"]
