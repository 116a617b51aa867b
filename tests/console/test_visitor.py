"""Who sits at the console, in each way to say so, and whose forms count."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, current_app, g, request
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

from app.access.principal import Principal
from app.config import Settings
from app.console import visitor
from app.console.cookies import MESSAGE, SESSION, say
from app.console.visitor import NotSignedIn, Session, Visitor
from app.context import Context
from app.errors import DomainError
from app.http.views import Service
from tests.console.conftest import Forge, change
from tests.support.issuer import AUDIENCE, LocalIssuer
from tests.support.keys import KEY, OTHER_KEY, write_keys
from tests.support.people import GATEWAY_SECRET, announced

LIFE_S = 3600
ANN = Session(
    "ann's token", "ann", "ann@example.com", groups=("ops", "research"), scopes=None, is_signed_in=True
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "auth_enabled": True,
            "gateway_secret": SecretStr(GATEWAY_SECRET),
            "console_session_seconds": LIFE_S,
        }
    )


@pytest.fixture
def pages(context: Context) -> Flask:
    """A page with a form, and where the form goes, as the console has them."""
    app = Flask("pages")

    def service() -> Service:
        return current_app.extensions["service"]

    @app.get("/console/page")
    def page() -> Response:
        g.visitor = visitor.current(service())
        response = Response(g.visitor.token)
        visitor.complete(response, g.visitor, service().context)
        return response

    @app.post("/console/page")
    def act() -> str:
        visitor.require_token(visitor.current(service()), request.form.get("token", ""))
        return "done"

    @app.get("/console/sign")
    def sign() -> Response:
        response = Response("signed in")
        groups = frozenset(request.args.getlist("group"))
        visitor.sign_in(response, Principal("ann", email="ann@example.com", groups=groups), service().context)
        return response

    @app.errorhandler(DomainError)
    def refuse(error: DomainError) -> tuple[str, int]:
        return f"{type(error).__name__}: {error.message}", error.status

    return app


@pytest.fixture
def browser(pages: Flask, context: Context) -> Callable[..., FlaskClient]:
    """A new browser, with cookies by name."""

    def new(**cookies: str) -> FlaskClient:
        pages.extensions["service"] = Service.of(context)
        client = pages.test_client()
        for name, value in cookies.items():
            client.set_cookie(name, value, path="/console")
        return client

    return new


def shown(client: FlaskClient, **more: Any) -> Visitor:
    with client:
        response = client.get("/console/page", **more)
        assert response.status_code == 200, response.text
        return g.visitor


def act(client: FlaskClient, token: str, **more: Any) -> TestResponse:
    return client.post("/console/page", data={"token": token}, **more)


# --- by a cookie


def test_the_cookie_of_a_sign_in_says_who_sits_there(
    browser: Callable[..., FlaskClient], signed_at: Forge
) -> None:
    client = browser(workspaces_console=signed_at(SESSION, ANN))
    found = shown(client)

    assert found == Visitor(
        Principal("ann", email="ann@example.com", groups=frozenset({"ops", "research"})),
        "ann's token",
        is_signed_in=True,
    )
    assert act(client, found.token).text == "done"


def test_scopes_that_narrowed_the_token_narrow_the_visitor(
    browser: Callable[..., FlaskClient], signed_at: Forge
) -> None:
    narrowed = Session("t", "ann", scopes=("entities:read",), is_signed_in=True)
    client = browser(workspaces_console=signed_at(SESSION, narrowed))

    assert not shown(client).principal.has_scope_for("entities", "write")


def test_nobody_sits_there_without_a_cookie(browser: Callable[..., FlaskClient]) -> None:
    response = browser().get("/console/page")

    assert (response.status_code, response.text) == (401, "NotSignedIn: Sign in first.")
    assert issubclass(NotSignedIn, DomainError)


def test_a_cookie_that_is_not_as_we_made_it_signs_nobody_in(
    browser: Callable[..., FlaskClient], signed_at: Forge
) -> None:
    good = signed_at(SESSION, ANN)
    content, time, signature = good.rsplit(".", 2)
    admin = signed_at(
        SESSION, Session("t", "root", "root@example.com", is_signed_in=True), key=b"guessed!" * 4
    )

    for forged in (
        admin,
        f"{admin.rsplit('.', 2)[0]}.{time}.{signature}",
        good[:-3],
        content,
        f"{content}.{time}",
        "x",
    ):
        assert browser(workspaces_console=forged).get("/console/page").status_code == 401


def test_a_sign_in_ends_in_its_time_and_at_once_if_the_setting_is_shortened(
    browser: Callable[..., FlaskClient], signed_at: Forge, context: Context
) -> None:
    young, old = (signed_at(SESSION, ANN, seconds_ago=LIFE_S + by) for by in (-60, 60))

    assert shown(browser(workspaces_console=young)).is_signed_in
    assert browser(workspaces_console=old).get("/console/page").status_code == 401
    change(context, console_session_seconds=LIFE_S / 2)
    assert browser(workspaces_console=young).get("/console/page").status_code == 401


def test_using_the_console_does_not_lengthen_a_sign_in(
    browser: Callable[..., FlaskClient], signed_at: Forge
) -> None:
    client = browser(workspaces_console=signed_at(SESSION, ANN, seconds_ago=LIFE_S - 60))

    assert "Set-Cookie" not in client.get("/console/page").headers


def test_a_sign_in_survives_the_rotation_of_keys_until_the_old_one_is_taken_away(
    browser: Callable[..., FlaskClient], signed_at: Forge, tmp_path: Path
) -> None:
    client = browser(workspaces_console=signed_at(SESSION, ANN))

    write_keys(tmp_path / "console-keys", OTHER_KEY, KEY)
    assert shown(client).is_signed_in
    write_keys(tmp_path / "console-keys", OTHER_KEY)
    assert client.get("/console/page").status_code == 401


def test_a_cookie_of_another_release_means_a_new_sign_in(
    browser: Callable[..., FlaskClient], signed_at: Forge
) -> None:
    for content in ({"token": "t", "id": "ann", "is_signed_in": True, "roles": []}, {"user": "ann"}, []):
        client = browser(workspaces_console=signed_at(SESSION, content))
        assert client.get("/console/page").status_code == 401


def test_who_is_the_administrator_is_asked_of_the_settings_with_each_request(
    browser: Callable[..., FlaskClient], signed_at: Forge, context: Context
) -> None:
    cookie = signed_at(SESSION, ANN)

    def is_admin(email: str) -> bool:
        change(context, admin_email=email)
        return shown(browser(workspaces_console=cookie)).principal.is_platform_admin

    assert [is_admin(email) for email in ("", "ANN@example.com", "bob@example.com")] == [False, True, False]


def test_a_sign_in_makes_a_new_token_each_time(browser: Callable[..., FlaskClient]) -> None:
    client = browser()
    client.get("/console/sign")
    first = shown(client)
    client.get("/console/sign")
    second = shown(client)

    assert first.is_signed_in
    assert second.is_signed_in
    assert first.token != second.token
    assert act(client, first.token).status_code == 403


def test_a_cookie_that_no_browser_would_keep_is_refused_and_the_claim_named(
    browser: Callable[..., FlaskClient], context: Context
) -> None:
    groups = "&".join(f"group={sha256(bytes([number])).hexdigest()}" for number in range(200))
    change(context, oidc_groups_claim="roles_of_ann")

    response = browser().get(f"/console/sign?{groups}")

    assert response.status_code == 403
    assert "'roles_of_ann'" in response.text
    assert "Set-Cookie" not in response.headers
    few = "&".join(groups.split("&")[:40])
    assert len(browser().get(f"/console/sign?{few}").headers["Set-Cookie"]) < 4096


# --- by the gateway, a token, or without authentication


def test_the_gateway_says_who_sits_there_and_its_forms_need_a_token_all_the_same(
    browser: Callable[..., FlaskClient],
) -> None:
    client, headers = browser(), announced("bob", email="bob@example.com", groups=["ops"])
    found = shown(client, headers=headers)

    assert found.principal == Principal("bob", email="bob@example.com", groups=frozenset({"ops"}))
    assert not found.is_signed_in
    assert act(client, "", headers=headers).status_code == 403
    assert act(client, "é", headers=headers).status_code == 403
    assert act(client, found.token, headers=headers).text == "done"


def test_the_token_of_one_browser_does_not_count_in_another(browser: Callable[..., FlaskClient]) -> None:
    headers = announced("bob")
    mine, yours = browser(), browser()
    token = shown(yours, headers=headers).token
    shown(mine, headers=headers)

    refused = act(mine, token, headers=headers)
    assert (refused.status_code, "load the page again" in refused.text) == (403, True)


def test_a_cookie_that_somebody_else_has_planted_gives_no_power_over_forms(
    browser: Callable[..., FlaskClient],
) -> None:
    """Another page of the same site can set cookies: mallory's own, whose token mallory knows."""
    of_mallory = browser()
    token = shown(of_mallory, headers=announced("mallory")).token
    planted = of_mallory.get_cookie(SESSION.name, path="/console")
    victim = browser(workspaces_console=planted.value)

    assert act(victim, token, headers=announced("ann")).status_code == 403
    assert shown(victim, headers=announced("ann")).token != token
    assert act(of_mallory, token, headers=announced("mallory")).text == "done"


def test_the_gateway_counts_more_than_the_cookie_of_a_sign_in(
    browser: Callable[..., FlaskClient], signed_at: Forge
) -> None:
    client = browser(workspaces_console=signed_at(SESSION, ANN))

    assert shown(client, headers=announced("bob")).principal.id == "bob"
    assert not shown(client, headers=announced("bob")).is_signed_in


def test_the_cookie_behind_a_gateway_signs_nobody_in(browser: Callable[..., FlaskClient]) -> None:
    client = browser()
    shown(client, headers=announced("bob"))

    assert client.get("/console/page").status_code == 401


def test_what_proves_nothing_is_no_reason_to_look_at_the_cookie(
    browser: Callable[..., FlaskClient], signed_at: Forge
) -> None:
    client = browser(workspaces_console=signed_at(SESSION, ANN))

    for wrong in (
        announced("bob") | {"X-Workspaces-Gateway-Secret": "guessed guessed guessed"},
        {"X-NMP-Principal-Id": "bob"},
        {"Authorization": "Bearer nonsense"},
    ):
        response = client.get("/console/page", headers=wrong)
        assert (response.status_code, response.text.split(":")[0]) == (401, "Unauthorized")


def test_a_bearer_token_says_who_sits_there(browser: Callable[..., FlaskClient], context: Context) -> None:
    with LocalIssuer() as issuer:
        change(context, oidc_issuer=issuer.url, oidc_audience=AUDIENCE)
        found = shown(browser(), headers={"Authorization": f"Bearer {issuer.token()}"})

    assert (found.principal.id, found.is_signed_in) == ("ann", False)


def test_the_token_of_the_forms_stays_and_its_cookie_is_renewed_before_it_ends(
    browser: Callable[..., FlaskClient], signed_at: Forge
) -> None:
    headers = announced("bob")
    young, half_over = (
        browser(workspaces_console=signed_at(SESSION, Session("t", "bob"), seconds_ago=ago))
        for ago in (60, LIFE_S // 2 + 60)
    )

    kept, renewed = (client.get("/console/page", headers=headers) for client in (young, half_over))

    assert (kept.text, renewed.text) == ("t", "t")
    assert "Set-Cookie" not in kept.headers
    assert f"Max-Age={LIFE_S}" in renewed.headers["Set-Cookie"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_without_authentication_this_machine_is_the_administrator_and_its_forms_need_a_token(
    browser: Callable[..., FlaskClient], context: Context, address: str
) -> None:
    change(context, auth_enabled=False)
    client, here = browser(), {"environ_base": {"REMOTE_ADDR": address}}
    found = shown(client, **here)

    assert (found.principal.is_platform_admin, found.is_signed_in) == (True, False)
    assert act(client, "", **here).status_code == 403
    assert act(client, found.token, **here).text == "done"


@pytest.mark.parametrize("address", ["192.0.2.7", "127.0.0.2", "", "::ffff:192.0.2.7"])
def test_without_authentication_no_other_machine_is_let_in(
    browser: Callable[..., FlaskClient], context: Context, address: str
) -> None:
    change(context, auth_enabled=False)
    response = browser().get("/console/page", environ_base={"REMOTE_ADDR": address})

    assert response.status_code == 403
    assert "WORKSPACES_AUTH_ENABLED=true" in response.text


def test_a_cookie_from_before_authentication_was_switched_on_signs_nobody_in(
    browser: Callable[..., FlaskClient], context: Context
) -> None:
    change(context, auth_enabled=False)
    before = browser()
    shown(before, headers={"X-NMP-Principal-Id": "root"})
    cookie = before.get_cookie(SESSION.name, path="/console")

    change(context, auth_enabled=True)
    assert browser(workspaces_console=cookie.value).get("/console/page").status_code == 401


def test_a_message_is_no_sign_in(browser: Callable[..., FlaskClient], context: Context, pages: Flask) -> None:
    with pages.test_request_context("/console"):
        response = Response()
        say(response, context, "Done.")
    value = response.headers["Set-Cookie"].split("=", 1)[1].split(";")[0]

    assert browser(**{SESSION.name: value}).get("/console/page").status_code == 401
    assert MESSAGE.name != SESSION.name


@pytest.mark.parametrize("is_on", [True, False])
def test_without_keys_the_console_names_the_setting(
    browser: Callable[..., FlaskClient], context: Context, is_on: bool
) -> None:
    change(context, auth_enabled=is_on, console_key_file="")
    response = browser().get("/console/page")

    assert response.status_code == 503
    assert "WORKSPACES_CONSOLE_KEY_FILE" in response.text
