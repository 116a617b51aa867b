"""An operator deletes a workspace: sees what goes, says when and why, and types its name."""

import pytest
from playwright.sync_api import Page, expect

from tests.console.browser.stage import WHO, Stage

pytestmark = pytest.mark.needs("chromium", package="chromium")


def test_a_workspace_is_deleted_by_its_name_once_its_content_was_seen(page: Page, stage: Stage) -> None:
    stage.make("wizard-a+1.0", "wizard-a1-0")
    page.goto("/console/workspaces?prefix=wizard-")
    page.get_by_role("link", name="Delete wizard-a+1.0").click()
    expect(page.get_by_role("row", name="filesets")).to_contain_text("2")
    expect(page.get_by_text("10 B of files.")).to_be_visible()
    page.get_by_label("Grace period").select_option(label="1 d")
    page.get_by_label("Reason, for those who ask later").fill("the project has ended")

    page.get_by_label("to confirm").fill("wizard-a1-0")
    page.get_by_role("button", name="Delete wizard-a+1.0").click()
    # The form is not sent, and so keeps the choice of the grace period.
    expect(page.get_by_label("to confirm")).to_be_focused()
    expect(page.locator("input:invalid")).to_have_count(1)
    expect(page.get_by_label("Grace period")).to_have_value("86400")
    assert stage.stack.client.get("/apis/entities/v2/workspaces/wizard-a+1.0").status_code == 200
    page.get_by_label("to confirm").fill("wizard-a+1.0")
    page.get_by_role("button", name="Delete wizard-a+1.0").click()

    expect(page.get_by_role("status")).to_contain_text("All access to wizard-a+1.0 is revoked")
    expect(page.locator(".lead")).to_contain_text("In its grace period")
    expect(page.locator("dl")).to_contain_text(f"by {WHO}")
    expect(page.locator("dl")).to_contain_text("the project has ended")
    assert stage.stack.client.get("/apis/entities/v2/workspaces/wizard-a+1.0").status_code == 404
    assert stage.stack.client.get("/apis/entities/v2/workspaces/wizard-a1-0").status_code == 200

    page.get_by_text("Restore the workspace").click()
    page.get_by_role("button", name="Restore it").click()
    expect(page.locator("#live .state")).to_have_text("RESTORED")
    assert stage.stack.client.get("/apis/entities/v2/workspaces/wizard-a+1.0").status_code == 200


def test_a_protected_workspace_has_no_form_that_deletes_it(page: Page, stage: Stage) -> None:
    stage.make("keepsake", protected=True)
    page.goto("/console/workspaces/keepsake/delete")
    expect(page.get_by_role("button", name="Delete keepsake")).to_have_count(0)

    page.get_by_role("button", name="Take the protection away").click()

    expect(page.get_by_role("status")).to_have_text("keepsake is no longer protected.")
    expect(page.get_by_role("button", name="Delete keepsake")).to_be_visible()
