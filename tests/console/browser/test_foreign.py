"""What pages of others make an operator's browser send: none of it counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.console.browser.conftest import FOREIGN, NewContext
from tests.console.browser.stage import Stage
from tests.support.serving import serving

pytestmark = pytest.mark.needs("chromium", package="chromium")


@contextmanager
def page_with_form(action: str, fields: dict[str, str]) -> Iterator[int]:
    """The port of a server with one page, whose form goes to `action`."""
    inputs = "".join(f'<input name="{name}" value="{escape(value)}">' for name, value in fields.items())
    form = f'<form method="post" action="{action}">{inputs}<button>Win</button></form>'

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<!doctype html><title>A page</title>{form}".encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield server.server_port


def token_on(page: Page) -> str:
    """The token of the forms of a page."""
    return page.locator('input[name="token"]').first.get_attribute("value") or ""


def is_paused(stage: Stage) -> bool:
    return bool(stage.stack.client.get("/apis/entities/v2/cleanup-control").json()["paused"])


@pytest.mark.parametrize("host", [FOREIGN, pytest.param("127.0.0.1", marks=pytest.mark.long)])
def test_a_form_of_another_origin_is_refused_even_with_the_token(
    new_context: NewContext, stage: Stage, host: str
) -> None:
    page = new_context().new_page()
    page.goto("/console")
    pause = f"{stage.stack.api_url}/console/pause"

    with page_with_form(pause, {"token": token_on(page)}) as port:
        page.goto(f"http://{host}:{port}/")
        with page.expect_response(pause) as answered:
            page.get_by_role("button", name="Win").click()

    assert answered.value.status == 403
    expect(page.locator("body")).to_contain_text("a page of another site")
    assert not is_paused(stage)


def test_a_page_whose_name_leads_here_is_answered_nothing(new_context: NewContext, stage: Stage) -> None:
    page, port = new_context().new_page(), urlsplit(stage.stack.api_url).port

    answer = page.goto(f"http://{FOREIGN}:{port}/console")

    assert answer
    assert answer.status == 421
    expect(page.locator("body")).to_contain_text(f"'{FOREIGN}:{port}' is not a name of this server")


def test_the_token_of_one_browser_is_worth_nothing_in_another(new_context: NewContext, stage: Stage) -> None:
    own, other = new_context().new_page(), new_context().new_page()
    own.goto("/console")
    other.goto("/console")
    assert token_on(own) != token_on(other)

    for token in ("", token_on(own)):
        button = other.get_by_role("button", name="Pause all destruction")
        button.evaluate("(button, token) => { button.form.elements.token.value = token; }", token)
        button.click()
        expect(other.get_by_role("status")).to_contain_text("the form is out of date: load the page again")

    assert not is_paused(stage)


def test_a_form_whose_browser_has_lost_its_cookies_is_refused(new_context: NewContext, stage: Stage) -> None:
    context = new_context()
    page = context.new_page()
    page.goto("/console")
    context.clear_cookies()

    page.get_by_role("button", name="Pause all destruction").click()

    expect(page.get_by_role("status")).to_contain_text("the form is out of date: load the page again")
    assert not is_paused(stage)
