"""The life of access keys: made, listed, suspended, revoked, forgotten."""

import io
from contextlib import redirect_stderr
from dataclasses import replace
from datetime import datetime
from typing import Any

import jwt
import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app import create_app
from app.access.keys import registry
from app.config import Settings
from app.context import Context
from app.db import Base
from app.logs import configure_logs
from app.maintenance.sweep import sweep
from app.models import AccessKey
from tests.access.keys import ANN, BEN, KEYS, OPERATING, listed, made, shown
from tests.support.aging import age
from tests.support.statements import NESTED_LOOPS

DAY_S = 86400.0
ELSEWHERE = f"ak_{'f' * 32}"


def client_with(context: Context, **settings: Any) -> FlaskClient:
    changed = context.settings.model_copy(update=settings)
    return create_app(replace(context, settings=changed)).test_client()


def life_s(key: dict[str, Any]) -> float | None:
    if key["expires_at"] is None:
        return None
    ends, begins = (datetime.fromisoformat(key[name]) for name in ("expires_at", "created_at"))
    return (ends - begins).total_seconds()


def test_a_new_key_is_told_with_its_token(client: FlaskClient) -> None:
    key = made(client, name="ci", description="for the build")

    token, jti, begins, ends = (key.pop(name) for name in ("token", "jti", "created_at", "expires_at"))
    assert key == {
        "name": "ci",
        "description": "for the build",
        "principal": "ann",
        "entity_type": "USER",
        "status": "ACTIVE",
        "issuer": "workspaces",
        "audiences": ["workspaces-access-key"],
        "token_type": "Bearer",
    }
    assert (jti[:3], len(jti)) == ("ak_", 35)
    assert begins < ends
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["jti"], claims["sub"], claims["email"]) == (jti, "ann", "ann@example.com")


def test_the_published_keys_verify_a_token(client: FlaskClient) -> None:
    token = made(client)["token"]

    published = jwt.PyJWKSet.from_dict(client.get("/apis/auth/jwks").json)

    key = published[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(
        token, key, algorithms=["RS256"], audience="workspaces-access-key", issuer="workspaces"
    )
    assert claims["sub"] == "ann"
    assert "d" not in client.get("/apis/auth/jwks").json["keys"][0]


@pytest.mark.parametrize(
    ("longest_s", "body", "expected_s"),
    [
        (0, {}, 30 * DAY_S),
        (0, {"expires_in_seconds": 1}, 1),
        (0, {"expires_in_seconds": None}, None),
        (3600, {}, 3600),
        (90 * DAY_S, {}, 30 * DAY_S),
        (3600, {"expires_in_seconds": 3600}, 3600),
    ],
)
def test_a_key_lives_as_long_as_is_asked(
    context: Context, longest_s: float, body: dict[str, Any], expected_s: float | None
) -> None:
    key = made(client_with(context, access_key_max_seconds=longest_s), **body)

    assert life_s(key) == expected_s
    claims = jwt.decode(key["token"], options={"verify_signature": False})
    assert ("exp" in claims) == (expected_s is not None)


@pytest.mark.parametrize("asked", [None, 3601])
def test_no_key_outlives_the_maximum(context: Context, session: Session, asked: int | None) -> None:
    client = client_with(context, access_key_max_seconds=3600)

    answer = client.post(KEYS, json={"expires_in_seconds": asked}, headers=ANN)

    assert answer.status_code == 400
    assert "WORKSPACES_ACCESS_KEY_MAX_SECONDS" in answer.json["detail"]
    assert session.scalars(select(AccessKey)).all() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", ""),
        ("name", "x" * 129),
        ("description", "x" * 1025),
        ("expires_in_seconds", 0),
        ("expires_in_seconds", "60"),
        ("expires_in_seconds", 10**12),
        ("service_account_id", ""),
        ("service_account_id", "-ci"),
        ("service_account_id", "x" * 241),
        ("service_account_id", "ci\n"),
        ("scopes", ["entities:read"]),
    ],
)
def test_what_no_key_can_be_is_named(client: FlaskClient, name: str, value: Any) -> None:
    answer = client.post(KEYS, json={name: value}, headers=OPERATING)

    assert answer.status_code == 422
    assert answer.json["detail"][0]["loc"] == ["body", name]


def test_keys_are_listed_newest_first_in_pages_without_their_tokens(client: FlaskClient) -> None:
    first, second, third = (made(client, name=name) for name in ("one", "two", "three"))
    made(client, BEN)

    page = client.get(KEYS, query_string={"page": 1, "page_size": 2}, headers=ANN).json
    rest = client.get(KEYS, query_string={"page": 2, "page_size": 2}, headers=ANN).json

    without = [{k: v for k, v in key.items() if not k.startswith("token")} for key in (third, second, first)]
    assert (page["data"], page["has_more"]) == (without[:2], True)
    assert (rest["data"], rest["has_more"]) == (without[2:], False)
    assert client.get(KEYS, query_string={"page_size": 101}, headers=ANN).status_code == 422


def test_a_key_is_suspended_unsuspended_and_revoked(client: FlaskClient) -> None:
    one = f"{KEYS}/{made(client)['jti']}"
    jti = one.rpartition("/")[2]

    def post(action: str) -> tuple[str, bool]:
        answer = client.post(f"{one}/{action}", headers=ANN)
        assert (answer.status_code, answer.json["jti"]) == (200, jti)
        return answer.json["status"], answer.json["changed"]

    assert post("unsuspend") == ("ACTIVE", False)
    assert post("suspend") == ("SUSPENDED", True)
    assert post("suspend") == ("SUSPENDED", False)
    assert [key["status"] for key in listed(client)] == ["SUSPENDED"]
    assert post("unsuspend") == ("ACTIVE", True)
    assert client.delete(one, headers=ANN).json == {"jti": jti, "revoked": True}
    assert client.delete(one, headers=ANN).json == {"jti": jti, "revoked": False}
    assert [key["status"] for key in listed(client)] == ["REVOKED"]
    for action in ("suspend", "unsuspend"):
        answer = client.post(f"{one}/{action}", headers=ANN)
        assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
        assert answer.json["detail"] == f"Revoked Scoped Access Key {jti} cannot be {action}ed"


def test_one_that_has_expired_stays_so(client: FlaskClient, session: Session) -> None:
    suspended, other = made(client, expires_in_seconds=60), made(client, expires_in_seconds=60)
    client.post(f"{KEYS}/{suspended['jti']}/suspend", headers=ANN)
    for key in (suspended, other):
        age(session, session.get_one(AccessKey, key["jti"]), 60)

    assert {key["status"] for key in listed(client)} == {"EXPIRED"}
    for key, action in ((suspended, "unsuspend"), (other, "suspend")):
        answer = client.post(f"{KEYS}/{key['jti']}/{action}", headers=ANN)
        assert (answer.json["status"], answer.json["changed"]) == ("EXPIRED", False)


@pytest.mark.parametrize("action", ["", "/suspend", "/unsuspend"])
def test_nobody_finds_the_key_of_somebody_else_but_an_administrator(client: FlaskClient, action: str) -> None:
    """One of somebody who has left must be revocable."""
    anns = made(client)["jti"]
    method = "POST" if action else "DELETE"

    for jti, by in ((anns, BEN), (ELSEWHERE, ANN), (ELSEWHERE, OPERATING)):
        answer = client.open(f"{KEYS}/{jti}{action}", method=method, headers=by)
        assert (answer.status_code, answer.json) == (
            404,
            {"detail": f"Scoped Access Key {jti} was not found"},
        )
    assert client.open(f"{KEYS}/{anns}{action}", method=method, headers=OPERATING).status_code == 200
    assert client.open(f"{KEYS}/ak_7{action}", method=method, headers=ANN).status_code == 422
    assert listed(client, OPERATING) == []


def test_nothing_that_is_stored_tells_a_token(client: FlaskClient, session: Session) -> None:
    token = made(client)["token"]
    client.delete(f"{KEYS}/{listed(client)[0]['jti']}", headers=ANN)

    stored = "".join(
        session.scalars(text(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {table.name} t")).one()
        for table in Base.metadata.sorted_tables
    )

    assert "access_key.revoked" in stored
    assert not any(part in stored for part in token.split("."))


def test_nothing_that_is_logged_tells_a_token(context: Context, session: Session) -> None:
    chatty = context.settings.model_copy(update={"log_level": "DEBUG", "log_format": "json"})
    written = io.StringIO()
    with redirect_stderr(written):
        client = create_app(replace(context, settings=chatty)).test_client()
        key = made(client)
        assert client.get(KEYS, headers=shown(key)).status_code == 200
        client.delete(f"{KEYS}/{key['jti']}", headers=ANN)
        assert client.get(KEYS, headers=shown(key)).status_code == 401
        assert client.get("/apis/auth/authenticate", headers=shown(key)).status_code == 401
        session.execute(text("ALTER TABLE access_keys RENAME TO elsewhere"))
        session.commit()
        try:
            assert client.get(KEYS, headers=shown(key)).status_code == 500
        finally:
            session.execute(text("ALTER TABLE elsewhere RENAME TO access_keys"))
            session.commit()
    configure_logs(Settings())

    assert "request.failed" in written.getvalue()
    assert not any(part in written.getvalue() for part in key["token"].split("."))


def test_keys_that_have_ended_are_forgotten_after_a_while(
    client: FlaskClient, session: Session, context: Context
) -> None:
    days = context.settings.access_key_retention_days
    kept = [made(client, expires_in_seconds=None), made(client), made(client)]
    gone = [made(client, expires_in_seconds=None), made(client)]
    for key in (kept[1], gone[0]):
        client.delete(f"{KEYS}/{key['jti']}", headers=ANN)
    for key, seconds in ((kept[0], 1000), (kept[1], days - 1), (gone[0], days + 1), (gone[1], days + 31)):
        age(session, session.get_one(AccessKey, key["jti"]), seconds * DAY_S)

    assert not sweep(context).failed

    session.expire_all()
    assert set(session.scalars(select(AccessKey.jti))) == {key["jti"] for key in kept}
    for key in gone:
        assert client.get(KEYS, headers=shown(key)).status_code == 401


@pytest.mark.parametrize("settings", [[], NESTED_LOOPS], ids=["as planned", "nested loops"])
def test_a_sweep_forgets_a_bounded_number(
    session: Session, monkeypatch: pytest.MonkeyPatch, settings: list[str]
) -> None:
    monkeypatch.setattr(registry, "_PRUNED_AT_ONCE", 2)
    for setting in settings:
        session.execute(text(f"SET LOCAL {setting}"))
    for number in range(3):
        session.add(AccessKey(jti=f"ak_{number}", holder="USER", principal="ann", created_by="ann"))
    session.flush()
    session.execute(text("UPDATE access_keys SET expires_at = now() - interval '2 days'"))

    assert [registry.prune_keys(session, older_than_s=DAY_S) for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize("is_authenticating", [True, False])
def test_without_the_setting_there_are_none(
    context: Context, client: FlaskClient, *, is_authenticating: bool
) -> None:
    key = made(client)
    without = client_with(context, access_keys_enabled=False, auth_enabled=is_authenticating)

    assert not Settings().access_keys_enabled
    for method, path in (
        ("POST", KEYS),
        ("GET", KEYS),
        ("DELETE", f"{KEYS}/{ELSEWHERE}"),
        ("POST", f"{KEYS}/{ELSEWHERE}/suspend"),
        ("POST", f"{KEYS}/{ELSEWHERE}/unsuspend"),
    ):
        content = {"json": {}} if path == KEYS and method == "POST" else {}
        answer = without.open(path, method=method, headers=ANN, **content)
        assert (answer.status_code, answer.json) == (
            404,
            {"detail": "Scoped Access Keys are not enabled", "code": "access_keys_disabled"},
        )
    assert without.get("/apis/auth/authenticate", headers=shown(key)).status_code == 401
