"""Making access keys, and asking with them."""

from typing import Any

from flask.testing import FlaskClient

from app.access.keys.signing import SigningKeys
from tests.support.people import OPERATOR, announced

KEYS = "/apis/auth/v2/access-keys"
ANN = announced("ann", email="ann@example.com")
BEN = announced("ben", email="ben@example.com")
OPERATING = announced("the-operator", email=OPERATOR)


def made(client: FlaskClient, by: dict[str, str] = ANN, **body: Any) -> dict[str, Any]:
    """A new key, as its maker gets it."""
    answer = client.post(KEYS, json=body, headers=by)
    assert answer.status_code == 200, answer.text
    key: dict[str, Any] = answer.json
    return key


def shown(key: dict[str, Any]) -> dict[str, str]:
    """The headers of a caller with that key."""
    return {"Authorization": f"Bearer {key['token']}"}


def listed(client: FlaskClient, by: dict[str, str] = ANN, **query: Any) -> list[dict[str, Any]]:
    """The keys that a caller finds."""
    answer = client.get(KEYS, query_string=query, headers=by)
    assert answer.status_code == 200, answer.text
    keys: list[dict[str, Any]] = answer.json["data"]
    return keys


def keys_of(client: FlaskClient) -> SigningKeys:
    """The keys that sign the tokens of its server."""
    keys = client.application.extensions["service"].authenticator.tokens.signing_keys
    assert keys is not None
    return keys
