"""The consent of a person at a terminal to what cannot be taken back."""

import sys

import click

from app.cli.outcome import Ended


def require_terminal(remedy: str) -> None:
    """Raise UsageError, with the remedy, if nobody can be asked."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"Without a terminal, --yes is needed {remedy}.")


def require_answer(question: str, expected: str) -> None:
    """Ask a person on standard error, and raise Ended unless that is the answer. The end of the input is none."""
    # Not click.prompt, which writes to standard output, too.
    click.echo(f"{question}: ", nl=False, err=True)
    if sys.stdin.readline().strip() != expected:
        raise Ended("that was not agreed to: nothing was changed")
