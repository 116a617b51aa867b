"""Every page, at the widths of a desk and of a hand, light and dark: legible, whole, and accessible."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect
from sqlalchemy.orm import Session

from app.console.application import all_pages
from app.lifecycle import JobStatus
from app.models import DeletionHold
from tests import factories
from tests.console.browser.stage import Stage
from tests.support.aging import time_of

pytestmark = pytest.mark.needs("chromium", package="chromium")

LONG = "a-name-as-long-as-any-that-is-taken-and-one-that-has-no-gap-xyz"
GOOD, PROTECTED, PENDING = "looks-good", "looks-protected", "looks-pending"

ADDRESSES = {
    "/console": ["/console"],
    "/console/live": ["/console/live"],
    "/console/health": ["/console/health"],
    "/console/failed": ["/console/failed"],
    "/console/deletions": ["/console/deletions", "/console/deletions?workspace=nobody-has-this"],
    "/console/deletions/<deletion_id>": [
        "/console/deletions/{failed}",
        "/console/deletions/{pending}",
        "/console/deletions/{done}",
    ],
    "/console/deletions/<deletion_id>/live": ["/console/deletions/{failed}/live"],
    "/console/deletions/<deletion_id>/failures": ["/console/deletions/{failed}/failures"],
    "/console/workspaces": ["/console/workspaces?prefix=looks-"],
    "/console/workspaces/<workspace>/delete": [
        f"/console/workspaces/{GOOD}/delete",
        f"/console/workspaces/{PROTECTED}/delete",
    ],
    "/console/workspaces/<workspace>/size": [f"/console/workspaces/{GOOD}/size"],
    "/console/audit": ["/console/audit", "/console/audit?actor=nobody-is-called-this"],
    "/console/hosts": ["/console/hosts"],
    "/console/webhooks": ["/console/webhooks"],
    "/console/webhooks/<webhook_id>": ["/console/webhooks/{webhook}"],
    "/console/day": ["/console/day"],
}
"""What is looked at of each page: a new one has no entry and fails here."""

PARTS = {rule for rule in ADDRESSES if rule.endswith(("/live", "/health", "/size", "/day"))}
"""They are looked at as parts of pages, too; alone they are for browsers that run no script."""

FILES = {"/console/audit/export"}
"""What is kept as a file, and looks like nothing."""


class Form(NamedTuple):
    """How a page is shown, and whether axe looks at it, too."""

    width: int
    scheme: Literal["light", "dark"]
    has_axe: bool = True


FEW = [Form(1280, "light"), Form(390, "dark", has_axe=False)]
ALL = [Form(1280, "light"), Form(1280, "dark"), Form(390, "light"), Form(390, "dark")]
FORMS = [
    pytest.param(FEW, id="light desk and dark hand"),
    pytest.param(ALL, id="desk and hand", marks=pytest.mark.long),
]
"""Two show all widths, and what axe says of one; all of them take four times as long."""

SHOWN = [
    # Most of a page is the same for the next thing that it shows, and a part is looked at in its page.
    pytest.param(address, marks=[pytest.mark.long] if number or rule in PARTS else [])
    for rule, addresses in ADDRESSES.items()
    for number, address in enumerate(addresses)
]

GRAVE = {"serious", "critical"}


@pytest.fixture(scope="module")
def looked_at(stage: Stage) -> dict[str, str]:
    """Something of everything that a page may show; the ids of the deletions among it."""
    [failed] = stage.fail(LONG, why=f"locked-{'x' * 90}")
    done, *_ = stage.fail("looks-done", "looks-alike", why="a policy of the bucket")
    answer = stage.stack.client.post(
        f"/apis/entities/v2/deletions/{done.id}/force", json={"reason": "nobody needs it any more"}
    )
    assert answer.status_code == 200, answer.text
    stage.wait_for_state(done.id, "DONE")
    stage.make(GOOD, PENDING)
    stage.make(PROTECTED, protected=True)
    answer = stage.stack.client.delete(
        f"/apis/entities/v2/workspaces/{PENDING}", params={"grace_seconds": 86400, "reason": "It has ended."}
    )
    assert answer.status_code == 200, answer.text
    with Session(stage.engine) as session:
        workspace = factories.make_workspace(session, "looks-busy", description="Runs for ever. " * 20)
        factories.make_job(session, workspace, status=JobStatus.ACTIVE, host="gpu-silent-1")
        webhook = factories.make_webhook(session)
        factories.make_delivery(session, webhook)
        session.commit()
        webhook_id = str(webhook.id)
    return {
        "failed": failed.id,
        "done": done.id,
        "pending": answer.json()["deletion_id"],
        "webhook": webhook_id,
    }


def test_every_page_is_looked_at() -> None:
    pages = {page.rule for page in all_pages() if not page.is_action}

    assert pages == {*ADDRESSES, *FILES}


@pytest.mark.parametrize("forms", FORMS)
@pytest.mark.parametrize("address", SHOWN)
def test_a_page_is_legible_and_accessible(
    page: Page, looked_at: dict[str, str], tmp_path: Path, address: str, forms: list[Form]
) -> None:
    answer = page.goto(address.format(**looked_at))
    assert answer
    assert answer.status == 200

    assert faults_of(page, forms, tmp_path) == []


@pytest.mark.parametrize("forms", FORMS)
def test_destruction_that_is_paused_and_held_is_legible_and_accessible(
    page: Page, looked_at: dict[str, str], stage: Stage, tmp_path: Path, forms: list[Form]
) -> None:
    with paused_and_held(stage):
        page.goto("/console")
        expect(page.get_by_role("button", name="Release them")).to_be_visible()

        assert faults_of(page, forms, tmp_path) == []


@pytest.mark.parametrize("forms", FORMS)
def test_what_was_refused_is_legible_and_accessible(
    page: Page, looked_at: dict[str, str], tmp_path: Path, forms: list[Form]
) -> None:
    page.goto(f"/console/workspaces/{GOOD}/delete")
    page.locator(".zone form").evaluate("form => { form.noValidate = true; }")
    page.get_by_label("to confirm").fill("another")
    page.get_by_role("button", name=f"Delete {GOOD}").click()
    expect(page.get_by_role("status")).to_contain_text("Nothing was deleted")

    assert faults_of(page, forms, tmp_path) == []


@contextmanager
def paused_and_held(stage: Stage) -> Iterator[None]:
    """The breaker holds somebody's deletions, and all destruction is paused."""
    stage.pause(paused=True)
    with Session(stage.engine) as session:
        hold = DeletionHold(requested_by="bob@example.com", held_at=time_of(session), reason="many")
        session.add(hold)
        session.commit()
        try:
            yield
        finally:
            session.delete(hold)
            session.commit()
            stage.pause(paused=False)


def faults_of(page: Page, forms: list[Form], pictures: Path) -> list[str]:
    """What is wrong with the page in these forms. Pictures are kept of all, or of those with a fault."""
    # Parts that come after the page have come, and what is folded is looked at, too.
    expect(page.locator("[hx-trigger=load]")).to_have_count(0)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    faults: list[str] = []
    for width, scheme, has_axe in forms:
        page.set_viewport_size(ViewportSize(width=width, height=900))
        page.emulate_media(color_scheme=scheme)
        needed = page.evaluate("document.documentElement.scrollWidth")
        found = [f"it is {needed} wide"] if needed > width else []
        found += violations(page) if has_axe else []
        if found or forms is ALL:
            page.screenshot(path=pictures / f"{width}-{scheme}.png", full_page=True)
        faults += [f"{width} {scheme}: {one}" for one in found]
    return faults


def violations(page: Page) -> list[str]:
    """What axe finds to be a grave obstacle."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    # What is no violation is not described.
    found: list[dict[str, Any]] = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [_in_words(one) for one in found if one["impact"] in GRAVE]


def _in_words(violation: dict[str, Any]) -> str:
    return f"{violation['id']}: {[node['html'][:120] for node in violation['nodes']]}"
