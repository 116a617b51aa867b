"""A browser that runs no script loses the live parts alone."""

import pytest
from playwright.sync_api import Page, expect

from tests.console.browser.conftest import NewContext
from tests.console.browser.stage import STUCK, Stage

pytestmark = pytest.mark.needs("chromium", package="chromium")


@pytest.fixture
def page(new_context: NewContext) -> Page:
    return new_context(java_script_enabled=False).new_page()


def reload_until(page: Page, stage: Stage, deletion: str, state: str) -> None:
    """What somebody does whose page does not renew itself."""
    stage.wait_for_state(deletion, state)
    page.reload()
    expect(page.locator("#live .state")).to_have_text(state)


def test_a_failed_deletion_is_retried(page: Page, stage: Stage) -> None:
    [failed] = stage.fail("plain-retry", why="plain retry")
    page.goto(f"/console/deletions/{failed.id}")
    stage.mend([failed])

    page.get_by_role("button", name="Retry now").click()

    expect(page.get_by_role("status")).to_have_text("Workers try again, now.")
    reload_until(page, stage, failed.id, "DONE")


@pytest.mark.long
def test_a_resource_is_skipped(page: Page, stage: Stage) -> None:
    [failed] = stage.fail("plain-skip", why="plain skip")
    page.goto(f"/console/deletions/{failed.id}")

    page.locator("summary", has_text=f"plain-skip/{STUCK}").click()
    page.get_by_label("Reason to give it up").fill("it may stay")
    page.get_by_role("button", name="Skip it and go on").click()

    reload_until(page, stage, failed.id, "DONE")
    expect(page.locator("#events")).to_contain_text("it may stay")


@pytest.mark.long
def test_a_workspace_is_deleted(page: Page, stage: Stage) -> None:
    stage.make("plain-delete")
    page.goto("/console/workspaces?prefix=plain-delete")
    page.get_by_role("link", name="Delete plain-delete").click()
    page.get_by_role("link", name="How many bytes of files?").click()
    expect(page.get_by_text("10 B of files.")).to_be_visible()
    page.go_back()

    page.get_by_label("to confirm").fill("plain-delete")
    page.get_by_role("button", name="Delete plain-delete").click()

    expect(page.get_by_role("status")).to_contain_text("All access to plain-delete is revoked")
    reload_until(page, stage, page.url.rpartition("/")[2], "DONE")
