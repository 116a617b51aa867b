"""Every link of the documentation leads to a file, and to a heading, that is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```+).*?^\1$", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The names under which GitHub shows the headings of a document."""
    found: set[str] = set()
    for title in re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), re.MULTILINE):
        words = re.sub(r"\]\([^)]*\)", "", title).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        again = sum(one == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", one) is not None for one in found)
        found.add(f"{slug}-{again}" if again else slug)
    return found


def broken_links(path: Path, text: str) -> list[str]:
    """The relative links of a document that lead nowhere, each with the reason."""
    broken = []
    for link in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists():
            broken.append(f"{link}: no such file")
        elif not target.resolve().is_relative_to(ROOT):
            broken.append(f"{link}: outside the project")
        elif anchor and anchor not in anchors(text if target == path else target.read_text()):
            broken.append(f"{link}: no such heading")
    return broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path, path.read_text()) == [], "Correct the link, or the heading that it names."


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tests_that_a_document_names_are_there(path: Path) -> None:
    named = set(re.findall(r"`(tests/[\w/.]+)`", path.read_text()))

    assert [each for each in sorted(named) if not (ROOT / each).exists()] == [], (
        "Name the test that shows it now."
    )


@pytest.mark.parametrize(
    "link", ["docs/nowhere.md", "docs/cleanup.md#nowhere", "#nowhere", "../outside.md", "docs/../../"]
)
def test_a_link_that_leads_nowhere_is_noticed(link: str) -> None:
    assert broken_links(ROOT / "README.md", f"# Title\n\n[text]({link})\n")


def test_links_to_headings_are_followed_as_github_names_them() -> None:
    text = "# A b\n\n## FAILED, what now?\n\n## `x_y` and *z*\n\n## A b\n\n```sh\n# no heading\n```\n"

    assert anchors(text) == {"a-b", "failed-what-now", "x_y-and-z", "a-b-1"}


def test_the_readme_stays_short_enough_to_be_read() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 350, (
        "Move what a newcomer does not need first to docs/."
    )
