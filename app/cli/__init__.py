"""The command line, noun then verb: a module for each noun.

Those of `workspace`, `deletion`, `cleanup`, `runtime` and `notify` that have a route ask a server or, with `--direct`,
call the same route in their own process; all others work on the database. None needs the broker.

The module of a noun is imported when the noun is typed. What works on the database is imported when a command does:
the version, help and commands that ask a server start in a fraction of the time that it takes.
"""

from importlib import import_module

import click

from app.cli.outcome import Commands
from app.version import VERSION

NOUNS = {
    "cleanup": "The work on all deletions, and its switch.",
    "db": "The database.",
    "deletion": "Deletions of workspaces.",
    "doctor": "Look at everything that the product needs, and say what is wrong; exit with 1 if anything is.",
    "notify": "Webhooks and e-mails about deletions.",
    "openapi": "Print the OpenAPI document.",
    "principal": "People, groups and services, and what they may do.",
    "runtime": "Hosts on which jobs and deployments run.",
    "secrets": "Secrets of workspaces.",
    "serve": "Run one PROCESS of the product, web unless another one is named, as its Procfile says.",
    "store": "What is stored outside the database, and its orphans.",
    "workspace": "Workspaces.",
}
"""The first sentence of the help of each noun: lists of them need no module."""


def command_of(noun: str) -> click.Command:
    """The command of that name, from the module of that name."""
    command: click.Command = getattr(import_module(f"{__name__}.{noun}"), noun)
    return command


class Nouns(Commands):
    """Imports the module of a command when it is typed."""

    # Not `get_command`: help and completion call that for every noun, and need only its name and first sentence.
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that was typed, and the arguments behind it."""
        noun, _, others = super().resolve_command(ctx, args)
        return noun, command_of(noun) if noun else None, others


@click.group(cls=Nouns, commands=[click.Command(noun, help=help_) for noun, help_ in NOUNS.items()])
@click.version_option(VERSION, message="workspaces %(version)s")
def main() -> None:
    """Operate the workspace control plane."""
    from app.config import load_settings

    load_settings()  # a wrong one is refused, also by commands that use none
