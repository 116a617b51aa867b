"""Everything can be done by keyboard, while the page keeps itself up to date."""

import pytest
from playwright.sync_api import Page, expect

from tests.console.browser.stage import STUCK, Stage

pytestmark = pytest.mark.needs("chromium", package="chromium")
MOST_TABS = 60
COUNT_POLLS = "window.polls = 0; document.addEventListener('htmx:after:swap', () => window.polls++)"


def tab_to(page: Page, words: str) -> list[str]:
    """Press Tab until what has the focus begins with `words`: the words of all on the way."""
    passed: list[str] = []
    while len(passed) < MOST_TABS:
        page.keyboard.press("Tab")
        passed.append(page.evaluate("document.activeElement.textContent.trim()"))
        if passed[-1].startswith(words):
            return passed
    raise AssertionError(f"no Tab leads to {words}: {[one[:40] for one in passed]}")


def wait_for_polls(page: Page, number: int) -> None:
    """Return once the page has taken in that many answers more."""
    page.wait_for_function(
        f"(before) => window.polls >= before + {number}", arg=page.evaluate("window.polls")
    )


def test_a_resource_is_skipped_by_keyboard_alone_while_the_page_polls(page: Page, stage: Stage) -> None:
    [failed] = stage.fail("by-keyboard", why="no mouse")
    page.goto(f"/console/deletions/{failed.id}")
    page.evaluate(COUNT_POLLS)

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    passed = tab_to(page, f"by-keyboard/{STUCK}")
    assert "Overview" not in passed, "the link has led past the menu"
    assert "Retry now" in passed, "what gives nothing up comes first"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    reason = page.get_by_label("Reason to give it up")
    expect(reason).to_be_focused()
    page.keyboard.type("by ")
    wait_for_polls(page, 2)
    expect(reason).to_be_focused()
    page.keyboard.type("keyboard")
    expect(reason).to_have_value("by keyboard")
    page.keyboard.press("Enter")

    expect(page.locator("#live .state")).to_have_text("DONE")
    expect(page.locator("#events")).to_contain_text("by keyboard")


def test_what_has_the_focus_keeps_it_when_its_part_of_the_page_is_renewed(page: Page, stage: Stage) -> None:
    page.goto("/console")
    page.evaluate(COUNT_POLLS)
    tab_to(page, "Pause all destruction")
    page.evaluate("window.focused = document.activeElement")

    wait_for_polls(page, 2)

    assert page.evaluate("document.activeElement === window.focused && window.focused.isConnected")
    expect(page.get_by_role("button", name="Pause all destruction")).to_be_focused()
