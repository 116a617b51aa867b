"""What an open page shows while the server is away, and once it is back."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.console.browser.conftest import NewContext

pytestmark = pytest.mark.needs("chromium", package="chromium")

LIVE = "**/console/live"


@pytest.fixture
def page(new_context: NewContext) -> Page:
    """One whose browser may complain: requests fail here."""
    return new_context().new_page()


def unavailable(route: Route) -> None:
    """What a server answers without its database, or a proxy without its server."""
    route.fulfill(status=503, content_type="text/html", body="<html><body><h1>Away</h1></body></html>")


def gone(route: Route) -> None:
    """A server that nobody listens for."""
    route.abort("connectionrefused")


@pytest.mark.parametrize("fault", [unavailable, pytest.param(gone, marks=pytest.mark.long)])
def test_an_open_page_keeps_what_it_shows_says_so_and_goes_on_by_itself(
    page: Page, fault: Callable[[Route], None]
) -> None:
    page.goto("/console")
    stale, tiles = page.get_by_text("What is shown here may be old"), page.locator("#live .tiles")
    expect(tiles).to_be_visible()
    expect(stale).to_be_hidden()

    page.route(LIVE, fault)
    expect(stale).to_be_visible()
    with page.expect_request(LIVE):  # it is asked again
        expect(tiles).to_be_visible()
    assert page.get_by_text("Away").count() == 0

    page.unroute(LIVE)
    expect(stale).to_be_hidden()
    expect(tiles).to_be_visible()
