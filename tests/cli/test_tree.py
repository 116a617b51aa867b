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


def test_commands_in_the_documents_are_commands() -> None:
    """Their nouns and verbs are; a word behind them is an argument."""
    wrong = set()
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        for typed in re.findall(r"[`$/] ?(workspaces [a-z]+(?: [a-z]+)?)", page.read_text()):
            noun, _, verb = typed.removeprefix("workspaces ").partition(" ")
            command = command_of(noun) if noun in NOUNS else None
            is_known = command and (
                not isinstance(command, click.Group) or not verb or verb in command.commands
            )
            if not is_known:
                wrong.add(f"{page.name}: {typed}")

    assert wrong == set()


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
