"""The tree of commands, and what the runbook says of it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from app.cli import NOUNS, command_of, main
from app.cli.outcome import Exit
from app.version import VERSION

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cleanup.md").read_text()


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from leaves(below, f"{path} {name}")
    else:
        yield path, command


COMMANDS = {
    path: command for noun in NOUNS for path, command in leaves(command_of(noun), f"workspaces {noun}")
}


def test_the_runbook_has_every_command_where_it_works_and_what_it_does() -> None:
    told = {
        path: (where, text)
        for path, where, text in re.findall(r"^\| `(workspaces [a-z -]+)` \| (.*?) \| (.*?) \|$", PAGE, re.M)
    }

    assert told == {
        path: (
            "server, or `--direct`" if any(one.name == "direct" for one in command.params) else "here",
            command.get_short_help_str(1000),
        )
        for path, command in COMMANDS.items()
    }, "docs/cleanup.md, The command line: the text is the first sentence of the command's docstring."


def test_the_runbook_has_every_exit_status() -> None:
    assert [int(one) for one in re.findall(r"^\| (\d+) \| ", PAGE, re.M)] == [*Exit]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_explains_itself(path: str) -> None:
    result = CliRunner().invoke(main, [*path.split()[1:], "--help"])

    assert result.exit_code == 0
    assert COMMANDS[path].help


@pytest.mark.parametrize("noun", NOUNS)
def test_the_list_of_nouns_has_of_each_what_its_own_help_says_first(noun: str) -> None:
    listed, own = main.commands[noun], command_of(noun)

    for width in range(20, 160):
        assert listed.get_short_help_str(width) == own.get_short_help_str(width), (
            "Write the first sentence of its docstring into NOUNS of app/cli/__init__.py."
        )


SHOWN = {
    ".md": r"[`$/] ?",
    ".html": r"(?:<code>|command\(\")",
    ".py": "`",
}
"""What stands before a command in the files that show some, by their suffix."""


def shown() -> Iterator[tuple[Path, str, list[str]]]:
    """Each command that a document, a page or a message shows: noun and verb, and the options behind them."""
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    for path in (*documents, *(ROOT / "app").rglob("*.*")):
        if before := SHOWN.get(path.suffix):
            typed = re.compile(rf"{before}(workspaces [a-z]+(?: [a-z]+)?)\b([^`\n]*)")
            for words, rest in typed.findall(path.read_text()):
                yield path, words, re.findall(r" (--[a-z-]+)", rest)


def test_every_command_that_is_shown_can_be_typed() -> None:
    """Its noun, its verb and its options are there; a word behind them is an argument."""
    wrong, looked_at = set(), set()
    for path, words, options in shown():
        looked_at.add(path.suffix)
        noun, _, verb = words.removeprefix("workspaces ").partition(" ")
        command: click.Command | None = command_of(noun) if noun in NOUNS else None
        if isinstance(command, click.Group) and verb:
            command = command.commands.get(verb)
        known = {option for one in command.params for option in one.opts} if command else set()
        if command is None or not known.issuperset(options):
            wrong.add(f"{path.relative_to(ROOT)}: {' '.join([words, *options])}")

    assert wrong == set()
    assert looked_at == set(SHOWN)


def complete(words: str) -> list[str]:
    """What a shell offers behind these words."""
    ended = subprocess.run(
        [sys.executable, "-m", "app.cli"],
        cwd=ROOT,
        env={
            **os.environ,
            "_WORKSPACES_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.partition(",")[2] for line in ended.stdout.splitlines()]


def test_a_shell_completes_nouns_verbs_options_and_values() -> None:
    assert complete("workspaces dele") == ["deletion"]
    assert {"retry", "restore"} <= set(complete("workspaces deletion re"))
    assert complete("workspaces deletion list --sta") == ["--state"]
    assert complete("workspaces deletion list --state F") == ["FAILED"]


def test_it_says_its_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"workspaces {VERSION}\n"
