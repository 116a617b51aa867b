"""How a command ends: its exit status, and one line for what the operator can mend. A bug has its traceback."""

from enum import IntEnum
from typing import Any

import click

from app.terminal import printable


class Exit(IntEnum):
    """The exit statuses of all commands; `docs/cleanup.md` explains them to operators."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    NOT_AUTHORISED = 3
    NOT_FOUND = 4
    FAILED = 5
    """The deletion that was waited for is FAILED."""
    TIMED_OUT = 6
    """The deletion that was waited for goes on."""
    INTERRUPTED = 130


class Ended(click.ClickException):
    """The end of a command that did not do all it was asked for: the message for the operator, and the status."""

    def __init__(self, message: str, exit_code: int = Exit.ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click has one for each class


class Commands(click.Group):
    """Turns what the operator can mend into one line; anything else is a bug, and has its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except click.UsageError:
            raise
        except click.ClickException as error:
            raise Ended(printable(error.message), error.exit_code) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(Exit.INTERRUPTED) from None


def echo(text: str, *, err: bool = False) -> None:
    """Print a line for people: what users have named or written in it is no command to the terminal.

    Data go to standard output, and with `err` what is said about them to standard error.
    """
    click.echo(printable(text), err=err)
