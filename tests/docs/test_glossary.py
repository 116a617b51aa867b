"""docs/glossary.md has today's words, in their order, and names what exists."""

import re
from pathlib import Path

import click

from app.cli import main
from app.config import Settings
from app.dispatch import CLEANUP_QUEUE, RUNTIME_QUEUE, TaskName
from tests.support import glossary

ROOT = Path(__file__).parents[2]
SOURCES = "\n".join(
    path.read_text()
    for package in ("app", "workers", "devstack", "migrations")
    for path in sorted((ROOT / package).rglob("*.py"))
)
NOT_NOUNS = {"openapi"}  # of the Makefile


def exists(name: str) -> bool:
    """Whether `name` is a path of the project, or a word of its code."""
    as_option = name.removeprefix("WORKSPACES_").lower()
    return (
        (ROOT / name).exists()
        or as_option in Settings.model_fields
        or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", SOURCES) is not None
    )


def test_words_are_in_the_order_of_the_alphabet_and_stand_there_once() -> None:
    words = [re.sub(r"\W", " ", word.casefold()) for word in glossary.words()]

    assert words == sorted(set(words)), "Move the line to its place in docs/glossary.md."


def test_retired_words_are_in_the_order_of_the_alphabet() -> None:
    first = [words[0] for words, how, _ in glossary.retired() if how != glossary.BY_REVIEWERS]
    keys = [re.sub("^(the|an) ", "", word.strip("*_").casefold()) for word in first]

    assert keys == sorted(keys), "Move the line to its place in docs/glossary.md."


def test_what_the_glossary_names_in_code_exists() -> None:
    named = {name for text in glossary.meanings() for name in re.findall("`(.+?)`", text)}
    listed = {name for _, name, is_used in glossary.names() if is_used}
    constants = {"resource:action", "CASCADE", "FOR SHARE", "*"}  # of SQL, or patterns

    assert {name for name in (named | listed) - constants if not exists(name)} == set(), (
        "Rename it in docs/glossary.md too."
    )


def test_the_table_of_names_tells_which_of_them_are_in_use() -> None:
    used = {name for _, name, is_used in glossary.names() if is_used}
    nouns = {name for what, name, is_used in glossary.names() if is_used and what.startswith("`workspaces")}
    assert isinstance(main, click.Group)

    assert {CLEANUP_QUEUE, RUNTIME_QUEUE, *TaskName} - used == {
        TaskName.JOB_RUN,
        TaskName.DEPLOYMENT_RUN,
        TaskName.FINALIZE,
    }
    assert nouns == set(main.commands) - NOT_NOUNS, "Put 'yes' or 'later' into the glossary's table of names."


def test_no_word_is_both_retired_and_explained() -> None:
    retired = {word for words, how, _ in glossary.retired() for word in words if how == glossary.EVERYWHERE}

    assert retired & set(glossary.words()) == set()
