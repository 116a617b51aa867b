"""An operator meets what is FAILED, and brings it to an end without loading a page anew."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.console.browser.stage import STUCK, WHO, Stage

pytestmark = pytest.mark.needs("chromium", package="chromium")


def test_a_resource_is_skipped_for_a_reason_and_the_page_shows_the_end_by_itself(
    page: Page, stage: Stage
) -> None:
    [failed] = stage.fail("legal-hold", why="object is locked")
    page.goto("/console")
    page.locator(".tile").get_by_role("link", name="FAILED").click()
    page.get_by_role("link", name="One by one").click()
    page.get_by_role("link", name="legal-hold").click()
    expect(page.locator(".reason")).to_contain_text(f"filesets/{STUCK}: PermissionError: 403 Forbidden")
    expect(page.locator(".reason")).to_contain_text("object is locked")

    page.locator("summary", has_text=f"legal-hold/{STUCK}").click()
    page.get_by_label("Reason to give it up").fill("the disk is under legal hold")
    page.get_by_role("button", name="Skip it and go on").click()

    expect(page.get_by_role("status")).to_have_text("The resource is given up; workers go on with the rest.")
    page.evaluate("window.isTheSame = true")
    expect(page.locator("#live .state")).to_have_text("DONE")
    expect(page.locator("#events")).to_contain_text("the disk is under legal hold")
    expect(page.locator("#actions").get_by_role("button")).to_have_count(0)
    assert page.evaluate("window.isTheSame"), "nobody has loaded the page anew"
    # What is over is not asked for again.
    expect(page.locator("#live")).not_to_have_attribute("hx-get", re.compile(".*"))
    [skipped] = stage.report(failed.id)["failures"]
    assert (skipped["skipped_by"], skipped["skip_reason"]) == (WHO, "the disk is under legal hold")


@pytest.mark.parametrize("number", [4, pytest.param(40, marks=pytest.mark.long)])
def test_all_of_a_cause_are_retried_and_one_that_fails_meanwhile_is_untouched(
    page: Page, stage: Stage, number: int
) -> None:
    why = f"quota of {number} buckets"
    seen = stage.fail(*(f"one-of-{number}-{one}" for one in range(number)), why=why)
    page.goto("/console/failed")
    cause = page.locator(".cause", has_text=why)
    expect(cause.get_by_role("heading")).to_have_text(f"{number} deletions: filesets")

    [late] = stage.fail(f"later-than-{number}", why=why)
    before = stage.report(late.id)
    stage.mend([*seen, late])
    cause.get_by_role("button", name=f"Retry all {number} now").click()

    expect(page.get_by_role("status")).to_have_text(
        f"{number + 1} match now, {number} when you looked: {number} retried."
    )
    expect(cause.get_by_role("heading")).to_have_text("1 deletion: filesets")
    for one in seen:
        stage.wait_for_state(one.id, "DONE")
    assert stage.report(late.id) == before
    assert stage.events(late.id)[-1] == "failed"
