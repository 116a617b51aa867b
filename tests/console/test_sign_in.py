"""Signing in at a real issuer on loopback, and what others may try meanwhile."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

from app.access import code_flow
from app.config import Settings
from app.console import visitor
from app.console.cookies import MESSAGE, SESSION
from app.console.rendering import POLICY
from app.console.sign_in import ATTEMPT, own_path
from app.console.visitor import Session
from app.context import Context
from tests.console.conftest import Forge, change
from tests.support.application import answering_from
from tests.support.code_flow import SignInIssuer, query_of
from tests.support.issuer import AUDIENCE, rsa_key
from tests.support.people import GATEWAY_SECRET, announced

PAGE = "/console/deletions?state=FAILED"


@pytest.fixture
def issuer() -> Iterator[SignInIssuer]:
    with SignInIssuer() as one:
        yield one


@pytest.fixture
def settings(settings: Settings, issuer: SignInIssuer) -> Settings:
    return settings.model_copy(
        update={"auth_enabled": True, "oidc_issuer": issuer.url, "oidc_client_id": AUDIENCE}
    )


@dataclass
class Person:
    """Somebody with a browser, who knows the password at the issuer."""

    client: FlaskClient
    issuer: SignInIssuer

    def begin(self, next_page: str = PAGE) -> str:
        """Where the browser is sent; the person signs in there."""
        response = self.client.get(f"/console/sign-in?{urlencode({'next': next_page})}")
        assert response.status_code == 303, response.text
        return response.location

    def come_back(self, url: str) -> TestResponse:
        return self.client.get(url.removeprefix("http://localhost"))

    def sign_in(self) -> TestResponse:
        return self.come_back(self.issuer.sign_in(self.begin()))

    @property
    def session(self) -> str | None:
        found = self.client.get_cookie(SESSION.name, path="/console")
        return found and found.value


@pytest.fixture
def person(context: Context, issuer: SignInIssuer) -> Callable[..., Person]:
    """A new person, at a server with these settings changed."""

    def new(**changed: object) -> Person:
        change(context, **changed)
        return Person(answering_from(context).test_client(), issuer)

    return new


@pytest.fixture
def ann(person: Callable[..., Person]) -> Person:
    return person()


def seen(context: Context, someone: Person) -> visitor.Visitor:
    """Who the next page takes the browser for."""
    app = answering_from(context)
    with app.test_request_context("/console", headers={"Cookie": f"{SESSION.name}={someone.session}"}):
        return visitor.current(app.extensions["service"])


def refused(response: TestResponse, status: int, words: str) -> bool:
    """Whether the answer is a page of one sentence that signs nobody in, with these words."""
    given = [one.split("=")[0] for one in response.headers.getlist("Set-Cookie") if "Max-Age=0" not in one]
    return (response.status_code, response.mimetype, given) == (
        status,
        "text/html",
        [],
    ) and words in response.text


def test_a_person_signs_in_and_arrives_where_they_wanted_to_go(ann: Person, context: Context) -> None:
    response = ann.sign_in()

    assert response.status_code == 200
    assert f'content="0;url={PAGE.replace("&", "&amp;")}"' in response.text
    assert response.headers["Content-Security-Policy"] == POLICY
    assert response.headers["Cache-Control"] == "no-store"
    found = seen(context, ann)
    assert (found.principal.id, found.principal.email, found.is_signed_in) == ("ann", "ann@example.com", True)


def test_the_cookies_of_a_sign_in_are_for_their_purpose_alone(ann: Person) -> None:
    begun = ann.client.get("/console/sign-in").headers["Set-Cookie"]
    [session] = [
        one for one in ann.sign_in().headers.getlist("Set-Cookie") if one.startswith(f"{SESSION.name}=")
    ]

    assert {"HttpOnly", "SameSite=Lax", "Path=/console/callback", "Max-Age=600"} <= set(begun.split("; "))
    assert {"HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=28800"} <= set(session.split("; "))


def test_the_issuer_is_asked_with_pkce_and_for_the_scopes_of_the_settings(
    person: Callable[..., Person], issuer: SignInIssuer
) -> None:
    ann = person(oidc_default_scopes="profile groups")
    asked = query_of(url := ann.begin())

    assert asked["scope"] == "openid profile groups"
    assert len(asked["code_challenge"]) == 43
    ann.come_back(issuer.sign_in(url))
    assert issuer.forms[0]["code_verifier"] not in url
    assert set(issuer.forms[0]) == {
        "grant_type",
        "code",
        "code_verifier",
        "redirect_uri",
        "client_id",
    }


@pytest.mark.parametrize("methods", [None, ["client_secret_post"], ["client_secret_basic", "none"]])
def test_a_secret_proves_the_client_as_the_issuer_takes_it(
    person: Callable[..., Person], issuer: SignInIssuer, methods: list[str] | None
) -> None:
    issuer.client_secret = "a secret of the client"
    if methods:
        issuer.document_overrides = {"token_endpoint_auth_methods_supported": methods}

    assert refused(person().sign_in(), 502, "does not accept")
    assert person(oidc_client_secret=SecretStr(issuer.client_secret)).sign_in().status_code == 200
    assert bool(issuer.authorizations[-1]) == (methods != ["client_secret_post"])


def test_a_state_that_was_not_begun_in_this_browser_signs_nobody_in(
    person: Callable[..., Person], issuer: SignInIssuer
) -> None:
    """Mallory has ann's browser come back with a code of mallory's."""
    mallory, ann = person(), person()
    back = issuer.sign_in(mallory.begin())

    assert refused(ann.come_back(back), 400, "begin again")
    ann.begin()
    assert refused(ann.come_back(back), 400, "begin again")
    assert issuer.hits["/token"] == 0
    assert mallory.come_back(back).status_code == 200


def test_a_sign_in_counts_once(ann: Person, issuer: SignInIssuer) -> None:
    back = issuer.sign_in(ann.begin())
    cookie = ann.client.get_cookie(ATTEMPT.name, path=ATTEMPT.path)
    assert ann.come_back(back).status_code == 200

    assert refused(ann.come_back(back), 400, "was used")
    assert issuer.hits["/token"] == 1
    # Somebody who has kept the cookie is refused by the issuer, whose code counts once.
    ann.client.set_cookie(ATTEMPT.name, cookie.value, path=ATTEMPT.path)
    assert refused(ann.come_back(back), 400, "does not accept")


def test_a_sign_in_that_took_too_long_has_to_begin_again(
    ann: Person, issuer: SignInIssuer, signed_at: Forge
) -> None:
    begun = {"state": "s", "nonce": "n", "verifier": "v", "next": "/console"}
    for seconds_ago, reached in ((500, 1), (700, 1)):
        cookie = signed_at(ATTEMPT, begun, seconds_ago=seconds_ago)
        ann.client.set_cookie(ATTEMPT.name, cookie, path=ATTEMPT.path)
        ann.client.get("/console/callback?state=s&code=c")
        assert issuer.hits["/token"] == reached


def test_a_code_that_was_stolen_is_worth_nothing_without_the_verifier(
    person: Callable[..., Person], issuer: SignInIssuer
) -> None:
    mallory, ann = person(), person()
    stolen = query_of(issuer.sign_in(ann.begin()))["code"]
    state = query_of(mallory.begin())["state"]

    back = f"/console/callback?{urlencode({'code': stolen, 'state': state})}"
    assert refused(mallory.come_back(back), 400, "does not accept")


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"nonce": "another"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"nonce": 7}, "nonce"),
        ({"aud": "another-client"}, "another audience"),
        ({"aud": [AUDIENCE, "other"], "azp": "other"}, "another client"),
        ({"iss": "https://evil.example"}, "malformed"),
        ({"exp": 1}, "expired"),
        ({"sub": None}, "no claim"),
    ],
    ids=str,
)
def test_an_id_token_that_is_not_for_this_sign_in_proves_nothing(
    ann: Person, issuer: SignInIssuer, claims: dict[str, Any], words: str
) -> None:
    issuer.claims = claims

    assert refused(ann.sign_in(), 502, words)


def test_an_id_token_is_for_the_client_also_where_the_api_wants_another_audience(
    person: Callable[..., Person], issuer: SignInIssuer
) -> None:
    ann = person(oidc_audience="api")
    assert ann.sign_in().status_code == 200

    issuer.claims = {"aud": "api"}
    assert refused(ann.sign_in(), 502, "another audience")


def test_an_id_token_with_a_key_that_the_issuer_has_not_published_proves_nothing(
    ann: Person, issuer: SignInIssuer
) -> None:
    issuer.signing_key = rsa_key("of-mallory")

    assert refused(ann.sign_in(), 502, "signing key is unknown")


def test_a_further_issuer_signs_nobody_in(person: Callable[..., Person], issuer: SignInIssuer) -> None:
    with SignInIssuer() as further:
        ann = person(oidc_additional_issuers=(further.url,))
        url = ann.begin()
        issuer.answer_to_code = (200, {"id_token": further.token(nonce=query_of(url)["nonce"])})

        assert refused(ann.come_back(issuer.sign_in(url)), 502, "proves nothing")


@pytest.mark.parametrize("subject", ["service:jobs", "service-account:ci", "*"])
def test_nobody_signs_in_as_what_no_user_is(ann: Person, issuer: SignInIssuer, subject: str) -> None:
    issuer.claims = {"sub": subject}

    assert refused(ann.sign_in(), 401, "not a valid user id")


def test_too_many_groups_are_refused_with_the_claim(ann: Person, issuer: SignInIssuer) -> None:
    issuer.claims = {"groups": [sha256(bytes([number])).hexdigest() for number in range(150)]}

    assert refused(ann.sign_in(), 403, "&#39;groups&#39; is too large")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        ("access_denied", 403, "denied"),
        ("temporarily_unavailable", 503, "temporarily_unavailable"),
        ("login_required", 502, "login_required"),
        ("<script>", 502, "(unknown)"),
        ("", 502, "(unknown)"),
    ],
)
def test_an_error_of_the_issuer_is_one_sentence(ann: Person, error: str, status: int, words: str) -> None:
    state = query_of(ann.begin())["state"]

    back = (
        f"/console/callback?{urlencode({'error': error, 'state': state, 'error_description': 'Click <a>'})}"
    )
    response = ann.come_back(back)
    assert refused(response, status, words)
    assert "Click" not in response.text
    assert refused(ann.come_back(back), 400, "was used")


def test_a_callback_without_a_code_signs_nobody_in(ann: Person) -> None:
    state = query_of(ann.begin())["state"]

    assert refused(ann.come_back(f"/console/callback?state={state}"), 400, "no code")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((200, {}), 502),
        ((200, {"id_token": 7}), 502),
        ((200, {"id_token": "x.y.z"}), 502),
        ((200, {"error": "invalid_grant", "error_description": "é\n"}), 502),
        ((200, {"error": 7}), 502),
        ((200, ["id_token"]), 502),
        ((200, {"id_token": "x", "expires_in": "soon"}), 502),
        ((200, {"id_token": "x" * 2_000_000}), 502),
        ((400, {"error": "invalid_grant"}), 400),
        ((400, ["error"]), 400),
        ((401, {"error": "<b>"}), 502),
        ((500, {}), 502),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_answer_of_the_token_endpoint_that_is_none_is_one_sentence(
    ann: Person, issuer: SignInIssuer, answer: tuple[int, Any], status: int
) -> None:
    issuer.answer_to_code = answer

    assert refused(ann.sign_in(), status, "<p>")


def test_the_token_endpoint_leads_nowhere_else(ann: Person, issuer: SignInIssuer) -> None:
    with SignInIssuer() as elsewhere:
        issuer.misbehaving_at = "/token"
        issuer.raw = f"HTTP/1.1 307 Elsewhere\r\nLocation: {elsewhere.url}/token\r\n\r\n".encode()

        assert refused(ann.sign_in(), 502, "does not accept")
        assert elsewhere.hits == {}


@pytest.mark.parametrize(
    "how",
    [
        {"trickling": "header"},
        {"trickling": "body"},
        {"raw": b"\r\n"},
        {"raw": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"},
    ],
    ids=str,
)
def test_an_issuer_that_never_ends_its_answer_is_given_up(
    ann: Person, issuer: SignInIssuer, how: dict[str, Any]
) -> None:
    issuer.misbehaving_at = "/token"
    for name, value in how.items():
        setattr(issuer, name, value)

    response = ann.sign_in()
    assert refused(response, response.status_code, "begin again")
    assert response.status_code in {502, 503}
    assert not issuer.was_waited_for


def test_an_issuer_that_is_silent_is_given_up_and_does_not_take_all_threads(
    ann: Person, issuer: SignInIssuer
) -> None:
    issuer.misbehaving_at = "/token"
    issuer.silent.set()
    assert refused(ann.sign_in(), 503, "does not answer")

    # As many as may ask at the same time do so already.
    while code_flow._EXCHANGES.acquire(blocking=False):
        pass
    asked = issuer.hits["/token"]
    try:
        assert refused(ann.sign_in(), 503, "Too many people")
    finally:
        for _ in range(2):
            code_flow._EXCHANGES.release()
    assert issuer.hits["/token"] == asked


def test_an_issuer_that_is_away_is_one_sentence(ann: Person, issuer: SignInIssuer) -> None:
    back = issuer.sign_in(ann.begin())
    issuer.stop()

    assert refused(ann.come_back(back), 503, "does not answer")
    issuer.__enter__()


def test_a_sign_in_cannot_begin_while_the_issuer_says_nothing(ann: Person, issuer: SignInIssuer) -> None:
    issuer.raw = b"\r\n"

    assert refused(ann.client.get("/console/sign-in"), 503, "authorization_endpoint")


@pytest.mark.parametrize(
    "endpoint", ["http://evil.example/authorize", "javascript:alert(1)", "", None, "//x"]
)
def test_the_browser_is_sent_to_https_or_this_host_alone(
    ann: Person, issuer: SignInIssuer, endpoint: str | None
) -> None:
    issuer.document_overrides = {"authorization_endpoint": endpoint}

    assert refused(ann.client.get("/console/sign-in"), 503, "authorization_endpoint")


OWN = ["/console", "/console/deletions", PAGE, "/console/?q=a%2Fb&c=d#e", "/console/workspaces/ml-team"]
FOREIGN = [
    "https://evil.example/console",
    "//evil.example/console",
    "/console//evil.example",
    "/console/\\evil.example",
    "\\\\evil.example",
    "/consoles",
    "/console.evil.example",
    "/console@evil.example",
    "/console/../apis/entities/v2/workspaces",
    "/console/%2e%2E/apis",
    "/console/.%2e/",
    "/console/%5c..%5capis",
    "/console/\r\nSet-Cookie: a=b",
    "/console/a b",
    "/console/é",
    "javascript:alert(1)",
    "/apis/entities/v2/workspaces",
    " /console",
    "",
    "/console/" + "x" * 1000,
]


@pytest.mark.parametrize("path", FOREIGN)
def test_a_sign_in_leads_to_the_console_alone(ann: Person, issuer: SignInIssuer, path: str) -> None:
    response = ann.come_back(issuer.sign_in(ann.begin(path)))

    assert 'content="0;url=/console"' in response.text
    assert "evil" not in response.text


@pytest.mark.parametrize("path", OWN)
def test_paths_of_the_console_are_kept(path: str) -> None:
    assert own_path(path) == path


def test_an_attempt_is_no_session_and_a_session_no_attempt(ann: Person, signed_at: Forge) -> None:
    begun = {"state": "s", "nonce": "n", "verifier": "v", "next": "/console"}
    ann.client.set_cookie(ATTEMPT.name, signed_at(SESSION, begun), path=ATTEMPT.path)

    assert refused(ann.client.get("/console/callback?state=s&code=c"), 400, "begin again")


def test_signing_in_makes_a_new_token(ann: Person, context: Context, signed_at: Forge) -> None:
    """A cookie that somebody has planted before, to know the token of the forms."""
    planted = signed_at(SESSION, Session("known", "ann"))
    ann.client.set_cookie(SESSION.name, planted, path="/console")
    ann.sign_in()

    assert seen(context, ann).token != "known"


def test_signing_out_forgets_everything_and_needs_the_token(ann: Person, context: Context) -> None:
    ann.sign_in()
    ann.begin()
    assert refused(ann.client.post("/console/sign-out", data={"token": "guessed"}), 403, "out of date")
    assert refused(ann.client.post("/console/sign-out", data={"other": ""}), 403, "out of date")
    assert ann.session

    response = ann.client.post("/console/sign-out", data={"token": seen(context, ann).token})

    assert (response.status_code, "signed out" in response.text) == (200, True)
    names = {SESSION.name, MESSAGE.name, ATTEMPT.name}
    assert {one.split("=")[0] for one in response.headers.getlist("Set-Cookie")} == names
    assert ann.session is None
    assert ann.client.get_cookie(ATTEMPT.name, path=ATTEMPT.path) is None
    assert ann.client.post("/console/sign-out").status_code == 200


def test_signing_out_reads_no_more_than_a_form(ann: Person, context: Context) -> None:
    """What comes with a form as a file would be written to the disk of the server, whatever its size."""
    ann.sign_in()
    token, file = seen(context, ann).token, (io.BytesIO(b"x" * 100), "a-file")

    in_parts = ann.client.post("/console/sign-out", data={"token": token, "file": file})
    long = ann.client.post("/console/sign-out", data={"token": token, "more": "x" * 70_000})

    assert refused(in_parts, 400, "A form is required")
    assert refused(long, 413, "larger than 65536 bytes")
    assert ann.session


def test_another_site_signs_nobody_out(ann: Person, context: Context) -> None:
    ann.sign_in()
    form = {"token": seen(context, ann).token}
    response = ann.client.post("/console/sign-out", data=form, headers={"Origin": "https://evil.example"})

    assert response.status_code == 403
    assert ann.session


def test_behind_a_gateway_there_is_nothing_to_sign_in_to_or_out_of(person: Callable[..., Person]) -> None:
    ann, headers = person(gateway_secret=SecretStr(GATEWAY_SECRET)), announced("ann")
    response = ann.client.get(f"/console/sign-in?next={PAGE}", headers=headers)

    assert (response.status_code, response.location) == (303, PAGE)
    form = {"token": "guessed"}
    assert refused(ann.client.post("/console/sign-out", data=form, headers=headers), 403, "out of date")


def test_without_authentication_there_is_nothing_to_sign_in_to(person: Callable[..., Person]) -> None:
    response = person(auth_enabled=False).client.get(f"/console/sign-in?next={PAGE}")

    assert (response.status_code, response.location) == (303, PAGE)


@pytest.mark.parametrize(
    ("changed", "setting"),
    [
        ({"oidc_issuer": "", "gateway_secret": SecretStr(GATEWAY_SECRET)}, "WORKSPACES_OIDC_ISSUER"),
        ({"oidc_client_id": "", "oidc_audience": "api"}, "WORKSPACES_OIDC_CLIENT_ID"),
        ({"console_key_file": ""}, "WORKSPACES_CONSOLE_KEY_FILE"),
    ],
)
def test_what_is_missing_for_a_sign_in_is_named(
    person: Callable[..., Person], changed: dict[str, object], setting: str
) -> None:
    ann = person(**changed)

    assert refused(ann.client.get("/console/sign-in"), 503, setting)
    assert ann.client.get("/console/callback?state=x&code=y").status_code in {400, 503}


def test_cookies_over_https_are_for_https_alone(ann: Person, issuer: SignInIssuer) -> None:
    over_https = {"base_url": "https://localhost"}
    begun = ann.client.get("/console/sign-in", **over_https)
    back = issuer.sign_in(begun.location)
    ended = ann.client.get(back.removeprefix("https://localhost"), **over_https)

    assert back.startswith("https://localhost/console/callback?")
    assert ended.status_code == 200
    cookies = [*begun.headers.getlist("Set-Cookie"), *ended.headers.getlist("Set-Cookie")]
    assert len(cookies) == 3
    assert all("; Secure" in one for one in cookies)


def test_nothing_that_proves_anything_is_in_the_log(
    person: Callable[..., Person], issuer: SignInIssuer, capfd: pytest.CaptureFixture[str]
) -> None:
    issuer.client_secret = "a secret of the client"
    ann = person(oidc_client_secret=SecretStr(issuer.client_secret), log_level="DEBUG", log_format="json")
    capfd.readouterr()
    urls = [ann.begin() for _ in range(4)]
    secrets = [issuer.client_secret, *(query_of(url)["nonce"] for url in urls)]
    for answer in (None, (400, {"error": "invalid_grant"}), (200, {}), (200, {"id_token": "not.a.token"})):
        issuer.answer_to_code = answer
        back = issuer.sign_in(ann.begin())
        secrets += [query_of(back)["code"], query_of(back)["state"]]
        ann.come_back(back)
    log = "".join(capfd.readouterr())

    events = [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]
    assert events.count("console.signed_in") == 1
    assert events.count("console.refused") == 3
    secrets += [*(form["code_verifier"] for form in issuer.forms), str(ann.session), "not.a.token"]
    assert [secret for secret in secrets if secret in log] == []


def test_a_server_that_signs_nobody_in_does_not_load_what_signs_in() -> None:
    code = (
        "import sys, app.api.application as a; a.assemble(); print([*filter(sys.modules.get, sys.argv[1:])])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code, "authlib", "requests", "httpx"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert loaded.stdout == "[]\n"
