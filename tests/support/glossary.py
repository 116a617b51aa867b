"""docs/glossary.md, read as tables."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "glossary.md"

EVERYWHERE, AS_A_NAME, BY_REVIEWERS = "everywhere", "as a name", "by reviewers"


def _rows(section: str) -> list[list[str]]:
    """The cells of the table that follows a heading, without its head."""
    found = re.search(rf"^#+ {section}$(.*?)(?=^#|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"docs/glossary.md has no section '{section}'"
    lines = [line for line in found[1].splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def words() -> list[str]:
    """The words that the glossary explains."""
    return [word.strip("* ") for word, _ in _rows("Glossary")]


def meanings() -> list[str]:
    """What it says of them."""
    return [meaning for _, meaning in _rows("Glossary")]


def names() -> list[tuple[str, str, bool]]:
    """What is named, its name, and whether that is in use by now."""
    return [
        (what, name.strip("`"), used == "yes")
        for what, name, used in _rows("Names that operators type or read")
    ]


def retired() -> list[tuple[list[str], str, str]]:
    """Words no longer in use, where they are looked for, and what is said instead."""
    rows = [(re.findall("`(.+?)`", old), how, new) for old, how, new in _rows("Retired words")]
    assert all(old and how in {EVERYWHERE, AS_A_NAME, BY_REVIEWERS} and new for old, how, new in rows)
    return rows
