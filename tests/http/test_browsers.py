"""Requests that a page of others makes a browser send: under a name that is made to lead here, and writes."""

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from app.api.application import all_routes
from app.config import Settings
from app.context import Context
from app.http.route import Route
from tests.support.application import answering_from

PUBLIC = [route for route in all_routes() if not route.rule.startswith("/health/")]
WRITES = [route for route in all_routes() if route.method != "GET"]
WORKSPACES = "/apis/entities/v2/workspaces"
EVIL = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
LOGIN = {"auth_enabled": True, "gateway_secret": SecretStr("correct horse battery")}


def named(route: Route) -> str:
    return f"{route.method} {route.rule}"


def client_of(context: Context, settings: Settings, **changed: object) -> FlaskClient:
    object.__setattr__(context, "settings", settings.model_copy(update=changed))
    return answering_from(context).test_client()


def test_no_route_answers_under_a_name_that_is_made_to_lead_here(client: FlaskClient) -> None:
    foreign = {"Host": "evil.example:8080"}

    answers = {named(one): client.open(one.rule, method=one.method, headers=foreign) for one in PUBLIC}

    assert len(answers) > 80
    assert {name: answer.status_code for name, answer in answers.items() if answer.status_code != 421} == {}
    assert all("WORKSPACES_TRUSTED_HOSTS" in answer.json["detail"] for answer in answers.values())
    assert client.get("/no/such/route", headers=foreign).status_code == 421


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health_answers_under_any_name(client: FlaskClient, path: str) -> None:
    assert client.get(path, headers={"Host": "whatever.internal"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.8.9.1", "[::1]:8080", "192.0.2.7", "[fe80::1]"],
)
def test_addresses_are_never_refused(client: FlaskClient, host: str) -> None:
    assert client.get(WORKSPACES, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil@127.0.0.1",
        "[::1",
        "a b",
        "127.0.0.1,evil",
        "",
    ],
)
def test_what_only_resembles_an_address_is_refused(client: FlaskClient, host: str) -> None:
    assert client.get(WORKSPACES, headers={"Host": host}).status_code == 421


def test_the_settings_add_names(context: Context, settings: Settings) -> None:
    client = client_of(context, settings, trusted_hosts=("api.example.com",))

    assert client.get(WORKSPACES, headers={"Host": "API.example.com:443"}).status_code == 200
    assert client.get(WORKSPACES, headers={"Host": "evil.api.example.com"}).status_code == 421


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        (LOGIN, 401),
        ({**LOGIN, "trusted_hosts": ("api.example.com",)}, 421),
        ({**LOGIN, "allow_unsigned_jwt": True}, 421),
    ],
)
def test_a_login_makes_any_name_harmless_unless_anybody_can_make_its_tokens(
    context: Context, settings: Settings, changed: dict[str, object], status: int
) -> None:
    client = client_of(context, settings, **changed)

    assert client.get(WORKSPACES, headers={"Host": "evil.example"}).status_code == status


def test_only_http_1_0_may_come_without_a_host(client: FlaskClient) -> None:
    def status(protocol: str) -> int:
        leave_out = {"HTTP_HOST": None, "SERVER_PROTOCOL": protocol}
        return client.get(WORKSPACES, environ_overrides=leave_out).status_code

    assert (status("HTTP/1.1"), status("HTTP/1.0")) == (400, 200)


@pytest.mark.parametrize("changed", [{}, LOGIN], ids=["without login", "with login"])
def test_no_route_lets_a_page_of_another_site_write(
    context: Context, settings: Settings, changed: dict[str, object]
) -> None:
    client = client_of(context, settings, **changed)

    answers = {named(one): client.open(one.rule, method=one.method, headers=EVIL) for one in WRITES}

    assert len(answers) > 40
    assert {name: answer.status_code for name, answer in answers.items() if answer.status_code != 403} == {}
    assert all("WORKSPACES_TRUSTED_ORIGINS" in answer.json["detail"] for answer in answers.values())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost"},
        {"Origin": "https://localhost"},  # TLS ends at the proxy
        {"Origin": "https://console.example.com", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://proxied.example.com", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"},
        {"Host": "[::1]:443", "Origin": "https://[::1]"},
    ],
    ids=str,
)
def test_programs_and_own_pages_write(context: Context, settings: Settings, headers: dict[str, str]) -> None:
    client = client_of(context, settings, trusted_origins=("https://console.example.com",))

    assert client.post(WORKSPACES, json={"name": "made"}, headers=headers).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://["},
        {"Origin": "http://localhost:81"},
        {"Origin": "http://evil.example/localhost"},
        {"Origin": "https://console.example.com.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://other.example.com"},
    ],
    ids=str,
)
def test_other_sites_do_not(context: Context, settings: Settings, headers: dict[str, str]) -> None:
    client = client_of(context, settings, trusted_origins=("https://console.example.com",))

    assert client.post(WORKSPACES, json={"name": "made"}, headers=headers).status_code == 403
