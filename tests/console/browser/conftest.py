"""One running product and one browser for all tests of this folder."""

import logging
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    expect,
    sync_playwright,
)

from devstack.passwords import kept_key_file
from tests.console.browser.stage import WHO, Stage
from tests.faults.world import QUICK
from tests.support.stack import CHECKOUT, Stack

# A line for each request that a test waits with would hide the logs of the stack.
logging.getLogger("httpx").setLevel(logging.WARNING)

PLUG_IN = CHECKOUT / "tests" / "support" / "faulty_store"
FOREIGN = "evil.example"
"""A name that leads this browser to this machine."""

# Of the browser: nothing that it does by itself, and nothing that needs a machine of another sort.
ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1",
)

DEADLINE_MS = 30_000
"""How long to wait for what a page will show."""

NewContext = Callable[..., BrowserContext]


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("console")
    with Stack(
        directory,
        plug_ins=[PLUG_IN],
        storage_url=f"faulty://{directory / 'data' / 'blobs'}",
        console_key_file=kept_key_file(directory / "console-keys"),
        # The browser is what is looked at: nothing has to ask more often than it does.
        **{**QUICK, "runtime_poll_seconds": 1},
    ) as stack:
        stack.blob_root.mkdir(exist_ok=True)
        stage = Stage(stack)
        yield stage
        stage.engine.dispose()


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def new_context(chromium: Browser, stage: Stage) -> Iterator[NewContext]:
    """Makes somebody else's browser: without cookies, and with Playwright's options for it."""
    made = []

    def make(**options: Any) -> BrowserContext:
        context = chromium.new_context(base_url=stage.stack.api_url, **options)
        context.set_default_timeout(DEADLINE_MS)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()


@pytest.fixture(scope="package")
def _only_page(chromium: Browser, stage: Stage) -> Page:
    context = chromium.new_context(
        base_url=stage.stack.api_url, extra_http_headers={"X-NMP-Principal-Id": WHO}
    )
    context.set_default_timeout(DEADLINE_MS)
    return context.new_page()


@pytest.fixture
def page(_only_page: Page) -> Iterator[Page]:
    """An operator's page, whom a gateway names. Whatever the browser complains about fails the test.

    It is the same for all tests, because a window costs as much as many pages; its browser has no cookies.
    """
    page = _only_page
    page.context.clear_cookies()
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    complaints: list[str] = []

    def on_console(said: ConsoleMessage) -> None:
        complaints.extend([said.text] if said.type in ("error", "warning") else [])

    def on_error(error: Error) -> None:
        complaints.append(str(error))

    page.on("console", on_console)
    page.on("pageerror", on_error)
    yield page
    # A page that goes on asking is none of the next test's.
    page.goto("about:blank")
    page.remove_listener("console", on_console)
    page.remove_listener("pageerror", on_error)
    assert complaints == []
