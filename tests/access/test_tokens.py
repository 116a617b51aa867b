"""Tokens of a real issuer, valid and invalid: no invalid token is accepted, and each answer names the reason."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
from flask.testing import FlaskClient

from app import create_app
from app.access.authenticate import Authenticator
from app.config import Settings
from app.context import Context
from tests.support.deadlines import DEADLINE_S
from tests.support.issuer import AUDIENCE, LocalIssuer, ec_key, rsa_key
from tests.support.people import OPERATOR

W = "/apis/entities/v2/workspaces"
INVALID = "Invalid or expired token: "


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer() as one:
        yield one


@pytest.fixture
def other_issuer() -> Iterator[LocalIssuer]:
    """The second one that is trusted."""
    with LocalIssuer(keys=[rsa_key("rsa-other")]) as one:
        yield one


@pytest.fixture
def settings(settings: Settings, issuer: LocalIssuer, other_issuer: LocalIssuer) -> Settings:
    return settings.model_copy(
        update={
            "oidc_issuer": issuer.url,
            "oidc_additional_issuers": (other_issuer.url,),
            "oidc_client_id": AUDIENCE,
            "token_leeway_seconds": 5,
            "jwks_cooldown_seconds": 0.001,
        }
    )


Get = Callable[[str], tuple[int, str]]


@pytest.fixture
def get(client: FlaskClient) -> Get:
    """Request the list of workspaces with a token; returns the status, and the detail of an error."""
    return lambda token: asked(client, token)


def asked(client: FlaskClient, token: str) -> tuple[int, str]:
    answer = client.get(W, headers={"Authorization": f"Bearer {token}"})
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert len(token) < 40 or token[:40] not in answer.text
    return answer.status_code, answer.json.get("detail", "")


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


class TestGoodTokens:
    def test_of_either_algorithm_and_either_issuer_get_in(
        self, get: Get, issuer: LocalIssuer, other_issuer: LocalIssuer
    ) -> None:
        assert get(issuer.token(key=rsa_key("rsa-1")))[0] == 200
        assert get(issuer.token(key=ec_key("ec-1")))[0] == 200
        assert get(other_issuer.token())[0] == 200

    def test_make_their_subject_the_creator_and_their_email_the_admin(
        self, client: FlaskClient, issuer: LocalIssuer
    ) -> None:
        headers = {"Authorization": f"Bearer {issuer.token()}"}

        made = client.post(W, json={"name": "anns"}, headers=headers)

        assert (made.status_code, made.json["created_by"]) == (201, "ann")
        members = client.get(f"{W}/anns/members", headers=headers).json["data"]
        assert [(one["principal"], one["roles"], one["granted_by"]) for one in members] == [
            ("ann@example.com", ["Admin"], "ann")
        ]

    @pytest.mark.parametrize(
        "claims",
        [
            {"groups": ["crew"]},
            {"groups": "others, crew"},
            {"cognito:groups": ["crew"]},
            {"sub": "crew"},
            {"email": "crew", "sub": "crew"},
        ],
    )
    def test_bring_the_roles_of_every_identity_of_their_sender(
        self, client: FlaskClient, issuer: LocalIssuer, claims: dict[str, Any]
    ) -> None:
        ann = {"Authorization": f"Bearer {issuer.token()}"}
        client.post(W, json={"name": "anns"}, headers=ann)
        client.post(f"{W}/anns/members", json={"principal": "crew", "roles": ["Viewer"]}, headers=ann)
        stranger = {"sub": "bob", "email": "bob@example.com"}

        with_it = issuer.token(**stranger | claims)
        without = issuer.token(**stranger)

        for token, expected in ((with_it, 200), (without, 403)):
            answer = client.get(f"{W}/anns", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == expected

    def test_of_the_operator_are_an_administrators_from_the_main_issuer_alone(
        self, client: FlaskClient, issuer: LocalIssuer, other_issuer: LocalIssuer
    ) -> None:
        """Another one may name anybody, and so could make administrators."""
        control = "/apis/entities/v2/cleanup-control"
        for asked_of, expected in ((issuer, 200), (other_issuer, 403)):
            headers = {"Authorization": f"Bearer {asked_of.token(email=OPERATOR)}"}
            assert client.get(control, headers=headers).status_code == expected
            assert client.get(W, headers=headers).status_code == 200

    def test_of_the_operator_are_a_platform_administrators_unless_the_email_is_unproved(
        self, client: FlaskClient, issuer: LocalIssuer
    ) -> None:
        control = "/apis/entities/v2/cleanup-control"
        for claims, expected in (
            ({"email": OPERATOR}, 200),
            ({"email": OPERATOR.upper()}, 200),
            ({"email": OPERATOR, "email_verified": True}, 200),
            ({"email": OPERATOR, "email_verified": False}, 403),
            ({"email": OPERATOR, "email_verified": "false"}, 403),
            ({"email": OPERATOR, "email_verified": "False"}, 403),
            ({"email": OPERATOR, "email_verified": "no"}, 403),
            ({"email": OPERATOR, "email_verified": 0}, 403),
            ({"email": OPERATOR, "email_verified": []}, 403),
            ({"email": [OPERATOR]}, 403),
            ({"email": f"{OPERATOR},x"}, 403),
            ({"email": "ann@example.com"}, 403),
            ({"sub": OPERATOR, "email": None}, 403),
            ({"groups": [OPERATOR], "email": None}, 403),
        ):
            token = issuer.token(**claims)
            answer = client.get(control, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == expected, claims

    @pytest.mark.parametrize("reserved", ["service:jobs", "service-account:ci"])
    def test_have_no_identity_in_common_with_a_service(
        self, settings: Settings, issuer: LocalIssuer, reserved: str
    ) -> None:
        token = issuer.token(email=f"{reserved}@x", groups=[reserved, "crew"])

        ann = Authenticator(settings).principal({"Authorization": f"Bearer {token}"}.get)

        assert ann.identities == {"ann", "crew", "*"}
        assert not ann.is_platform_admin

    def test_may_be_a_little_early_or_late_because_clocks_differ(self, get: Get, issuer: LocalIssuer) -> None:
        now = int(time.time())
        assert get(issuer.token(exp=now - 2))[0] == 200
        assert get(issuer.token(nbf=now + 2, iat=now + 2))[0] == 200


now = int(time.time())
BAD_CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"exp": now - 60}, "it has expired"),
    "not yet valid": ({"nbf": now + 3600}, "it is not valid yet"),
    "issued in the future": ({"iat": now + 3600}, "it is not valid yet"),
    "endless": ({"exp": None}, "it has no claim 'exp'"),
    "without a time of issue": ({"iat": None}, "it has no claim 'iat'"),
    "with an end that is no time": ({"exp": "tomorrow"}, "it is malformed"),
    "of another issuer": ({"iss": "https://evil.example"}, "its issuer is not trusted"),
    "of no issuer": ({"iss": None}, "its issuer is not trusted"),
    "for another audience": ({"aud": "somebody-else"}, "it is for another audience"),
    "for no audience": ({"aud": None}, "it has no claim 'aud'"),
    "for others among them": ({"aud": ["a", "b"]}, "it is for another audience"),
    "of nobody": ({"sub": None}, "it has no claim 'sub'"),
    "of an empty name": ({"sub": ""}, "its subject is not a valid user id"),
    "of a service": ({"sub": "service:entities"}, "its subject is not a valid user id"),
    "of a service account": ({"sub": "service-account:ci"}, "its subject is not a valid user id"),
    "of a name with a newline": ({"sub": "ann\n"}, "its subject is not a valid user id"),
    "of everybody": ({"sub": "*"}, "its subject is not a valid user id"),
    "of a name written backwards": ({"sub": "a\u202eb"}, "its subject is not a valid user id"),
    "of an endless name": ({"sub": "a" * 257}, "its subject is not a valid user id"),
}


@pytest.mark.parametrize(("claims", "why"), BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
def test_a_token_with_bad_claims_is_refused(
    get: Get, issuer: LocalIssuer, claims: dict[str, Any], why: str
) -> None:
    assert get(issuer.token(**claims)) == (401, INVALID + why)


@pytest.mark.parametrize("name", ["sub", "iss", "aud", "exp"])
@pytest.mark.parametrize("value", [7.5, ["ann"], {"id": "ann"}, True, None])
def test_a_claim_of_the_wrong_type_is_refused(get: Get, issuer: LocalIssuer, name: str, value: Any) -> None:
    key = issuer.keys[0]
    claims = jwt.decode(issuer.token(), options={"verify_signature": False}) | {name: value}
    # PyJWT would not write such a thing, so it is signed as bytes.
    token = jwt.api_jws.encode(
        json.dumps(claims).encode(), key.private, key.algorithm, headers={"kid": key.kid}
    )

    status, why = get(token)

    assert (status, why.startswith(INVALID)) == (401, True)


@pytest.mark.parametrize("email", ["op\u017f@kin.example", "ops@\u212ain.example"])
def test_an_email_that_only_unicode_takes_for_the_operators_is_not(
    context: Context, issuer: LocalIssuer, email: str
) -> None:
    """A long s and a Kelvin sign: folding cases turns them into the letters that they resemble."""
    settings = context.settings.model_copy(update={"admin_email": "ops@kin.example"})
    client = create_app(replace(context, settings=settings)).test_client()
    control = "/apis/entities/v2/cleanup-control"

    for claimed, expected in ((email, 403), ("OPS@kin.example", 200)):
        headers = {"Authorization": f"Bearer {issuer.token(email=claimed)}"}
        assert client.get(control, headers=headers).status_code == expected


def test_an_email_that_nobody_has_verified_is_no_subject_either(
    context: Context, issuer: LocalIssuer
) -> None:
    settings = context.settings.model_copy(update={"oidc_subject_claim": "email"})
    client = create_app(replace(context, settings=settings)).test_client()

    assert asked(client, issuer.token())[0] == 200
    assert asked(client, issuer.token(email_verified=False)) == (
        401,
        f"{INVALID}its subject is an unverified email",
    )


class TestAlgorithms:
    """A token's header chooses the algorithm, but only among the accepted ones."""

    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
    @pytest.mark.parametrize("signature", ["", "c2lnbmVk"])
    def test_none_is_no_algorithm(
        self, get: Get, issuer: LocalIssuer, algorithm: str, signature: str
    ) -> None:
        claims = jwt.decode(issuer.token(), options={"verify_signature": False})
        token = f"{encoded({'alg': algorithm, 'kid': 'rsa-1'})}.{encoded(claims)}.{signature}"

        status, why = get(token)

        assert status == 401
        assert why.startswith("Unsigned JWTs are not accepted" if algorithm == "none" else INVALID)

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    def test_a_public_key_is_no_shared_secret(self, get: Get, issuer: LocalIssuer, algorithm: str) -> None:
        key = rsa_key("rsa-1")
        claims = jwt.decode(issuer.token(), options={"verify_signature": False})
        for secret in (key.public_pem, json.dumps(key.jwk).encode()):
            # As an attacker would: PyJWT itself refuses to sign with such a secret.
            signed = f"{encoded({'alg': algorithm, 'kid': key.kid})}.{encoded(claims)}"
            digest = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), secret)
            token = f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
            assert get(token) == (401, f"{INVALID}its algorithm is none of RS256, ES256")

    def test_a_symmetric_key_in_the_jwks_is_none(self, get: Get, issuer: LocalIssuer) -> None:
        issuer.extra_jwks = [{"kty": "oct", "kid": "oct-1", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"}]
        claims = jwt.decode(issuer.token(), options={"verify_signature": False})
        token = jwt.encode(claims, "secret-secret-secret-secret-secret", "HS256", headers={"kid": "oct-1"})

        assert get(token)[0] == 401

    def test_a_key_signs_with_its_own_algorithm_alone(self, get: Get, issuer: LocalIssuer) -> None:
        for algorithm in ("RS512", "PS256"):
            claims = jwt.decode(issuer.token(), options={"verify_signature": False})
            token = jwt.encode(claims, rsa_key("rsa-1").private, algorithm, headers={"kid": "rsa-1"})
            assert get(token) == (401, f"{INVALID}its algorithm is none of RS256, ES256")
        mixed = jwt.encode(claims, ec_key("ec-1").private, "ES256", headers={"kid": "rsa-1"})
        assert get(mixed)[0] == 401


class TestKeys:
    def test_a_signature_of_another_key_is_wrong(self, get: Get, issuer: LocalIssuer) -> None:
        forged = issuer.token(key=rsa_key("forged"), headers={"kid": "rsa-1"})

        assert get(forged) == (401, f"{INVALID}its signature is wrong")

    def test_claims_cannot_be_replaced(self, get: Get, issuer: LocalIssuer) -> None:
        head, _, signature = issuer.token().split(".")
        claims = jwt.decode(issuer.token(), options={"verify_signature": False}) | {"email": OPERATOR}

        assert get(f"{head}.{encoded(claims)}.{signature}") == (401, f"{INVALID}its signature is wrong")

    def test_one_issuers_key_does_not_sign_in_the_name_of_another(
        self, get: Get, issuer: LocalIssuer, other_issuer: LocalIssuer
    ) -> None:
        assert get(other_issuer.token())[0] == 200

        in_another_name = other_issuer.token(iss=issuer.url)

        assert get(in_another_name) == (401, f"{INVALID}its signing key is unknown")

    @pytest.mark.parametrize("name", ["jku", "x5u", "jwk"])
    def test_a_token_cannot_bring_its_own_key(self, get: Get, issuer: LocalIssuer, name: str) -> None:
        with LocalIssuer(keys=[rsa_key("evil")]) as evil:
            brought = rsa_key("evil").jwk if name == "jwk" else f"{evil.url}/keys"
            token = issuer.token(key=rsa_key("evil"), headers={name: brought})

            assert get(token) == (401, f"{INVALID}its signing key is unknown")
            assert evil.hits == {}

    def test_a_token_must_say_which_key_it_was_signed_with(self, get: Get, issuer: LocalIssuer) -> None:
        claims = jwt.decode(issuer.token(), options={"verify_signature": False})
        token = jwt.encode(claims, issuer.keys[0].private, "RS256")

        assert get(token) == (401, f"{INVALID}its signing key is unknown")

    def test_a_new_key_is_found_when_a_token_names_it(self, get: Get, issuer: LocalIssuer) -> None:
        new = rsa_key("rsa-2")
        assert get(issuer.token())[0] == 200
        assert get(issuer.token(key=new)) == (401, f"{INVALID}its signing key is unknown")

        issuer.keys.append(new)

        assert eventually(lambda: get(issuer.token(key=new))[0] == 200)

    def test_a_key_that_was_withdrawn_is_believed_no_longer_than_the_cache_lives(
        self, context: Context, issuer: LocalIssuer
    ) -> None:
        quick = context.settings.model_copy(update={"jwks_cache_seconds": 0.05})
        client = create_app(replace(context, settings=quick)).test_client()
        old = issuer.token()
        assert asked(client, old)[0] == 200

        issuer.keys = [rsa_key("rsa-2")]

        assert eventually(lambda: asked(client, old) == (401, f"{INVALID}its signing key is unknown"))
        assert asked(client, issuer.token())[0] == 200

    def test_whatever_else_is_published_does_not_hide_the_keys(self, get: Get, issuer: LocalIssuer) -> None:
        issuer.extra_jwks = [
            {"kty": "unheard-of", "kid": "a"},
            {"kid": "rsa-1", "kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"},
            {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        ]

        assert get(issuer.token())[0] == 200

    def test_unknown_keys_do_not_make_us_hammer_the_issuer(
        self, context: Context, issuer: LocalIssuer
    ) -> None:
        slow = context.settings.model_copy(update={"jwks_cooldown_seconds": 600})
        client = create_app(replace(context, settings=slow)).test_client()

        for number in range(50):
            assert asked(client, issuer.token(headers={"kid": f"no-{number}"}))[0] == 401

        assert issuer.hits["/keys"] == 1
        assert asked(client, issuer.token())[0] == 200

    def test_keys_stay_good_while_the_issuer_is_away_and_without_them_nobody_gets_in(
        self, context: Context, issuer: LocalIssuer
    ) -> None:
        quick = context.settings.model_copy(update={"jwks_cache_seconds": 0.05})
        knowing, fresh = (create_app(replace(context, settings=quick)).test_client() for _ in range(2))
        token = issuer.token()
        assert asked(knowing, token)[0] == 200

        issuer.status = 500

        status, why = asked(fresh, token)
        assert (status, "could not be fetched" in why) == (503, True)
        deadline = time.monotonic() + 0.2  # past the life of the cache
        while time.monotonic() < deadline:
            assert asked(knowing, token)[0] == 200
        issuer.status = 200
        assert eventually(lambda: asked(fresh, token)[0] == 200)

    def test_an_issuer_that_speaks_for_another_is_not_believed(self, get: Get, issuer: LocalIssuer) -> None:
        issuer.document_overrides = {"issuer": "https://somebody-else.example"}

        assert get(issuer.token())[0] == 503


class TestShapes:
    @pytest.mark.parametrize(
        "mangle",
        [
            lambda token: "",
            lambda token: "x",
            lambda token: "..",
            lambda token: token[:-10],
            lambda token: token[: len(token) // 2],
            lambda token: token.rpartition(".")[0],
            lambda token: token.rpartition(".")[0] + ".",
            lambda token: token + ".more",
            lambda token: "." + token,
            lambda token: token.replace(".", "..", 1),
            lambda token: token + "é",
            lambda token: f"{encoded([])}.{token.partition('.')[2]}",
            lambda token: f"{encoded({'alg': ['RS256'], 'kid': 'rsa-1'})}.{token.partition('.')[2]}",
            lambda token: f"{encoded({'alg': 'RS256', 'kid': 7})}.{token.partition('.')[2]}",
            lambda token: f"{token.split('.')[0]}.{'W1tb' * 1000}.{token.split('.')[2]}",
        ],
    )
    def test_a_mangled_token_is_refused(
        self, get: Get, issuer: LocalIssuer, mangle: Callable[[str], str]
    ) -> None:
        assert get(mangle(issuer.token()))[0] == 401

    def test_a_huge_token_is_refused_unread(self, get: Get, issuer: LocalIssuer) -> None:
        padding = "x" * 100_000

        assert get(issuer.token(padding=padding)) == (401, f"{INVALID}it is longer than 16384 characters")
        assert issuer.hits == {}

    @pytest.mark.parametrize("header", ["Basic YW5uOnB3", "Bearer", "bearer ", "Token x", ""])
    def test_what_is_no_bearer_token_is_nobodys(self, client: FlaskClient, header: str) -> None:
        answer = client.get(W, headers={"Authorization": header})

        assert answer.status_code == 401


class TestScopes:
    @pytest.mark.parametrize(
        ("claims", "may_read", "may_write"),
        [
            ({}, True, True),
            ({"scope": "openid profile"}, True, True),
            ({"scope": "entities:read"}, True, False),
            ({"scope": "entities:write"}, False, True),
            ({"scp": ["platform:read", "platform:write"]}, True, True),
            ({"scp": "jobs:read jobs:write"}, False, False),
            ({"scope": "https://api.example/auth.read entities:read"}, True, False),
        ],
    )
    def test_narrow_what_a_token_may_be_used_for(
        self,
        client: FlaskClient,
        issuer: LocalIssuer,
        claims: dict[str, Any],
        may_read: bool,
        may_write: bool,
    ) -> None:
        free = {"Authorization": f"Bearer {issuer.token()}"}
        client.post(W, json={"name": "anns"}, headers=free)
        headers = {"Authorization": f"Bearer {issuer.token(**claims)}"}

        read = client.get(f"{W}/anns", headers=headers)
        written = client.post(f"{W}/anns/projects", json={"name": "alpha"}, headers=headers)

        assert (read.status_code == 200, written.status_code == 201) == (may_read, may_write)
        for answer in (read, written):
            assert answer.status_code in {200, 201, 403}
        if not may_read:
            assert "scopes" in read.json["detail"]
            assert client.get(W, headers=headers).json["data"] == []

    @pytest.mark.parametrize("prefix", ["api://workspaces", "api://workspaces/"])
    def test_come_with_the_prefix_that_the_command_line_writes(
        self, context: Context, issuer: LocalIssuer, prefix: str
    ) -> None:
        """It puts a slash between the two, whether or not the prefix ends with one."""
        settings = context.settings.model_copy(update={"oidc_scope_prefix": prefix})
        client = create_app(replace(context, settings=settings)).test_client()
        token = issuer.token(scope="openid api://workspaces/entities:read")
        headers = {"Authorization": f"Bearer {token}"}

        assert client.get(f"{W}/default", headers=headers).status_code == 200
        assert client.post(W, json={"name": "anns"}, headers=headers).status_code == 403

    def test_do_not_bind_a_platform_administrator(self, client: FlaskClient, issuer: LocalIssuer) -> None:
        token = issuer.token(email=OPERATOR, scope="jobs:read")

        answer = client.get("/apis/entities/v2/cleanup-control", headers={"Authorization": f"Bearer {token}"})

        assert answer.status_code == 200

    def test_in_the_syntax_of_permissions_are_answered_with_the_mistake(
        self, get: Get, issuer: LocalIssuer
    ) -> None:
        status, why = get(issuer.token(scope="workspaces.read"))

        assert status == 400
        assert why.startswith("Invalid scope 'workspaces.read': this value uses permission syntax (dots).")


class TestUnsigned:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"allow_unsigned_jwt": True})

    def unsigned(self, **claims: Any) -> str:
        present = int(time.time())
        good = {"sub": "ann@example.com", "email": "ann@example.com", "iat": present, "exp": present + 60}
        return jwt.encode({k: v for k, v in (good | claims).items() if v is not None}, None, "none")

    def test_get_in_where_the_settings_say_so(self, get: Get) -> None:
        assert get(self.unsigned())[0] == 200

    @pytest.mark.parametrize(
        ("claims", "why"),
        [
            ({"exp": now - 60}, "it has expired"),
            ({"exp": None}, "it has no claim 'exp'"),
            ({"iat": None}, "it has no claim 'iat'"),
            ({"nbf": now + 3600}, "it is not valid yet"),
            ({"sub": None}, "it has no claim 'sub'"),
            ({"sub": "service:x"}, "its subject is not a valid user id"),
        ],
    )
    def test_are_held_to_their_claims(self, get: Get, claims: dict[str, Any], why: str) -> None:
        assert get(self.unsigned(**claims)) == (401, INVALID + why)

    def test_must_not_pretend_to_be_signed(self, get: Get) -> None:
        assert get(f"{self.unsigned()}c2lnbmVk") == (
            401,
            f"{INVALID}it claims to be unsigned and has a signature",
        )

    def test_do_not_spoil_the_signed_ones(self, get: Get, issuer: LocalIssuer) -> None:
        assert get(issuer.token())[0] == 200
        assert get(issuer.token(key=rsa_key("forged"), headers={"kid": "rsa-1"}))[0] == 401


def test_without_an_issuer_no_token_gets_in(context: Context, issuer: LocalIssuer) -> None:
    none = {"oidc_issuer": "", "oidc_additional_issuers": (), "access_keys_enabled": False}
    nobody = context.settings.model_copy(update=none)
    client = create_app(replace(context, settings=nobody)).test_client()

    assert asked(client, issuer.token()) == (401, "Bearer token authentication not configured")


def eventually(is_so: Callable[[], bool], *, within_s: float = DEADLINE_S) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if is_so():
            return True
    return False
