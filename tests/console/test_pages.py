"""Every page and action of the console: who is let in, what a foreign form does, and how errors look."""

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy.orm import Session

from app.access.permissions import PLATFORM_WIDE, Permission
from app.access.roles import Role
from app.console import rendering
from app.console.application import all_pages
from app.console.page import Page
from app.console.rendering import STATIC, address_of
from app.console.sign_in import own_path
from app.context import Context
from tests import factories
from tests.access.world import World, everything
from tests.support.application import answering_from
from tests.support.browser import Browser

PAGES = {f"{page.method} {page.rule}": page for page in all_pages()}
ACTIONS = {name: page for name, page in PAGES.items() if page.is_action}
MOST_LINES = 20

FORMS: dict[str, dict[str, str]] = {
    "/console/pause": {},
    "/console/resume": {},
    "/console/release": {"requested_by": "ann"},
    "/console/failed/retry": {"as_of": "2026-01-01T00:00:00Z", "cause": "denied"},
    "/console/failed/skip": {
        "as_of": "2026-01-01T00:00:00Z",
        "kind": "filesets",
        "cause": "denied",
        "reason": "gone",
    },
    "/console/failed/force": {"as_of": "2026-01-01T00:00:00Z", "cause": "denied", "reason": "gone"},
    "/console/deletions/<deletion_id>/retry": {"as_of": "2026-01-01T00:00:00Z"},
    "/console/deletions/<deletion_id>/skip": {
        "as_of": "2026-01-01T00:00:00Z",
        "kind": "filesets",
        "resource_id": "x",
        "reason": "gone",
    },
    "/console/deletions/<deletion_id>/force": {"as_of": "2026-01-01T00:00:00Z", "reason": "gone"},
    "/console/deletions/<deletion_id>/restore": {},
    "/console/workspaces/<workspace>/delete": {
        "id": "00000000-0000-0000-0000-000000000000",
        "confirm": "ml-team",
    },
    "/console/workspaces/<workspace>/protection": {"protected": "true"},
    "/console/hosts/<host>/purge": {"confirm": "gpu-1"},
    "/console/webhooks/<webhook_id>/test": {},
    "/console/webhooks/<webhook_id>/enabled": {"enabled": "true"},
    "/console/webhooks/<webhook_id>/deliveries/<delivery_id>/redeliver": {},
}
"""What each action takes: a new one has no entry and fails here."""


def address(page: Page, world: World) -> str:
    values = {**world.parameters, "host": "gpu-1"}
    return re.sub(r"<(\w+)>", lambda found: values[found[1]], page.rule)


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_needs_the_token_of_the_page(
    session: Session, world: World, operator: Browser, name: str
) -> None:
    page = ACTIONS[name]
    before = everything(session)

    for token in ({"token": ""}, {"token": "another"}, {"token": "ünlikely"}):
        answer = operator.client.post(
            address(page, world), data=FORMS[page.rule] | token, headers=operator.headers
        )
        assert answer.status_code == 303
        operator.open(answer.headers["Location"])
        assert "the form is out of date" in operator.message

    assert everything(session) == before


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_takes_only_what_a_form_of_a_page_sends(
    session: Session, world: World, operator: Browser, name: str
) -> None:
    token = operator.open("/console/hosts") and re.search(
        r'name="token" value="([^"]+)"', operator.open("/console").text
    )
    assert token
    sent = FORMS[ACTIONS[name].rule] | {"token": token[1]}
    before = everything(session)

    as_json = operator.client.post(address(ACTIONS[name], world), json=sent, headers=operator.headers)
    more = operator.client.post(
        address(ACTIONS[name], world), data=sent | {"surprise": "1"}, headers=operator.headers
    )

    assert as_json.status_code == 303
    if "form" in inspect.signature(ACTIONS[name].handler).parameters:
        assert more.status_code == 303
        operator.open(more.headers["Location"])
        assert "surprise" in operator.message
        assert everything(session) == before


def test_every_action_is_short_and_has_its_form_here() -> None:
    long = {
        name: length
        for name, page in ACTIONS.items()
        if (length := len(inspect.getsource(page.handler).splitlines())) > MOST_LINES
    }

    assert long == {}, "an action calls the function of the API, and little else"
    assert {page.rule for page in ACTIONS.values()} == set(FORMS)


@pytest.mark.parametrize("name", PAGES)
def test_who_is_not_signed_in_is_led_to_the_sign_in(
    session: Session, world: World, console: Context, name: str
) -> None:
    page = PAGES[name]
    client = answering_from(console).test_client()

    answer = client.open(address(page, world), method=page.method, data=FORMS.get(page.rule, {}))

    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/console/sign-in")


@pytest.mark.parametrize(
    ("shown", "next_"),
    [
        ("http://localhost/console/deletions?state=FAILED", "/console/deletions?state=FAILED"),
        ("https://evil.example//elsewhere", "//elsewhere"),
        ("http://[", "/console"),
        ("", ""),
    ],
)
def test_a_page_whose_sign_in_has_ended_is_led_there_and_back(
    session: Session, console: Context, shown: str, next_: str
) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": shown}
    client = answering_from(console).test_client()

    answer = client.get("/console/live", headers=headers)

    assert answer.status_code == 204
    assert parse_qs(urlsplit(answer.headers["HX-Redirect"]).query).get("next", [""]) == [next_]
    assert own_path(next_) in (next_, "/console")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_for_those_whom_the_api_would_let_in(
    session: Session, world: World, sitting: Callable[[str], Browser], operator: Browser, name: str
) -> None:
    page = PAGES[name]
    factories.make_binding(session, world.workspace, "viewer", Role.VIEWER)
    session.commit()
    before = everything(session)
    of_members = {Permission.WORKSPACES_READ: {"viewer", "admin-of-ml-team", "stranger"}}
    may = of_members.get(
        page.permission, {"admin-of-ml-team"} if page.permission not in PLATFORM_WIDE else set()
    )

    for who in ("stranger", "viewer", "admin-of-ml-team"):
        browser = sitting(who)
        if page.is_action:
            token = re.search(
                r'name="token" value="([^"]+)"', browser.open("/console/workspaces/ml-team/delete").text
            )
            sent = FORMS[page.rule] | {"token": token[1] if token else ""}
            answer = browser.client.post(address(page, world), data=sent, headers=browser.headers)
            browser.open(answer.headers["Location"])
            assert browser.message.startswith("refused") or browser.page.status_code == 403 or who in may
        else:
            status = browser.open(address(page, world)).status_code
            is_of_everybody = page.rule == "/console/deletions"
            assert (status == 200) is (who in may or is_of_everybody) or (status, page.permission) == (
                403,
                Permission.DELETIONS_READ,
            )
        if who not in may:
            assert everything(session) == before

    if not page.is_action:
        assert operator.open(address(page, world)).status_code == 200


def test_every_answer_is_a_page_that_runs_no_script_but_ours(
    session: Session, world: World, operator: Browser
) -> None:
    for place in ("/console", "/console/deletions/no-such", "/console/deletions?state=NONE"):
        answer = operator.open(place)
        policy = answer.headers["Content-Security-Policy"]

        assert answer.mimetype == "text/html"
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?! src=\"/console/static/)|style=| on\w+=", answer.text)


def test_errors_are_pages_with_the_status_and_the_words_of_the_api(
    session: Session, world: World, operator: Browser
) -> None:
    missing = operator.open("/console/deletions/no-such")
    assert missing.status_code == 404
    assert "Deletion &#39;no-such&#39; not found" in missing.text

    wrong = operator.open("/console/deletions?state=NONE")
    assert wrong.status_code == 422
    assert "state" in wrong.text


def test_a_link_to_which_others_have_added_something_leads_to_its_page(
    session: Session, world: World, operator: Browser
) -> None:
    found = operator.open("/console/deletions?state=FAILED&utm_source=chat")

    assert found.status_code == 200
    assert str(world.failed.id) in found.text


@pytest.mark.parametrize("name", [name for name, page in ACTIONS.items() if FORMS[page.rule]])
def test_text_that_cannot_be_stored_is_refused_in_every_field(
    session: Session, world: World, operator: Browser, name: str
) -> None:
    operator.open("/console")
    token = operator.form("/pause").fields["token"]
    before = everything(session)

    for field in FORMS[ACTIONS[name].rule]:
        sent = FORMS[ACTIONS[name].rule] | {"token": token, field: "a\0b"}
        answer = operator.client.post(address(ACTIONS[name], world), data=sent, headers=operator.headers)
        assert answer.status_code == 303
        operator.open(answer.headers["Location"])
        assert operator.message == "refused: The form contains a NUL character; remove it."

    assert everything(session) == before


def test_what_others_have_named_stays_text(session: Session, world: World, operator: Browser) -> None:
    text = "<script>alert(1)</script>\" onload='x'"
    world.failed.workspace_name = world.failed.reason = world.failed.requested_by = text
    session.merge(world.failed)
    session.commit()

    for place in ("/console/deletions", f"/console/deletions/{world.failed.id}"):
        page = operator.open(place).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page


def test_without_authentication_it_is_for_this_machine_alone(session: Session, console: Context) -> None:
    open_ = replace(console, settings=console.settings.model_copy(update={"auth_enabled": False}))
    client = answering_from(open_).test_client()

    assert client.get("/console").status_code == 200
    elsewhere = client.get("/console", environ_base={"REMOTE_ADDR": "10.0.0.7"})
    assert elsewhere.status_code == 403
    assert "WORKSPACES_AUTH_ENABLED" in elsewhere.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "rebound.example"}, 421),
    ],
)
def test_pages_of_others_get_nowhere(
    session: Session, console: Context, headers: dict[str, str], status: int
) -> None:
    open_ = replace(console, settings=console.settings.model_copy(update={"auth_enabled": False}))
    client = answering_from(open_).test_client()
    token = re.search(r'name="token" value="([^"]+)"', client.get("/console").text)
    assert token

    answer = client.post("/console/pause", data={"token": token[1]}, headers=headers)

    assert answer.status_code == status


def test_the_files_beside_the_pages_are_those_that_were_looked_at(operator: Browser) -> None:
    htmx = STATIC["htmx-4.0.1.min.js"]

    assert sha256(htmx).hexdigest() == "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130"
    assert b"Zero-Clause BSD" in STATIC["htmx-LICENSE.txt"]
    for name, content in STATIC.items():
        answer = operator.open(address_of(name))
        assert (answer.status_code, answer.data) == (200, content)
        assert "immutable" in answer.headers["Cache-Control"]
        again = operator.open(address_of(name), **{"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304
    assert operator.open("/console/static/no-such.js").status_code == 404
    assert operator.open("/console/static/..%2fpages.py").status_code == 404


def test_a_release_that_is_installed_over_a_running_process_changes_no_page_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = rendering._environment
    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", lambda *_, **__: pytest.fail("read while it runs"))
        found = [pages.loader.get_source(pages, name)[0] for name in pages.list_templates()]

    assert found
    assert all(found)


def test_the_root_leads_browsers_to_the_console_and_tells_programs_where_things_are(
    operator: Browser,
) -> None:
    in_browser = operator.open("/", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (in_browser.status_code, in_browser.headers["Location"]) == (302, "/console")

    places = operator.open("/").json
    for name in ("console", "api", "openapi", "status", "metrics"):
        assert operator.open(places[name]).status_code in {200, 403}, name


def test_an_unexpected_error_is_a_page_without_the_insides_of_the_server(
    session: Session, console: Context, operator: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret: /srv/data")

    monkeypatch.setattr("app.console.pages.overview.living_groups", broken)

    answer = operator.open("/console")

    assert answer.status_code == 500
    assert answer.mimetype == "text/html"
    assert "secret" not in answer.text
