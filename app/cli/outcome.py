"""How a command ends: its exit status, and one line for what the operator can mend. A bug has its traceback."""

from enum import IntEnum
from typing import Any

import click
from psycopg.errors import InsufficientPrivilege, LockNotAvailable, UndefinedColumn, UndefinedTable
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.db import WRONG_SERVER
from app.logs import printable, without_values
from app.postgres import UnfitServer


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
        except (PoolTimeout, UnfitServer, DBAPIError) as error:
            raise Ended(describe(error)) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(Exit.INTERRUPTED) from None


def describe(error: PoolTimeout | UnfitServer | DBAPIError) -> str:
    """One line about a database that does not serve, with the remedy. Raises the error if it is a bug."""
    if isinstance(error, PoolTimeout):
        return "the database of WORKSPACES_DATABASE_URL has no connection left"
    if isinstance(error, UnfitServer):
        return f"{WRONG_SERVER}: {error}"
    message = " ".join(without_values(error.orig or error).split())
    match error.orig:
        case UndefinedTable() | UndefinedColumn():
            return (
                "the schema of the database is not that of this release; run `workspaces db upgrade` "
                f"({message})"
            )
        case UnfitServer():
            return f"{WRONG_SERVER}: {message}"
        case LockNotAvailable():
            return f"another transaction holds a lock for too long; nothing was changed ({message})"
        case InsufficientPrivilege():
            return f"the role of the database's URL may not do that: {message}"
    if isinstance(error, OperationalError):
        return f"the database of WORKSPACES_DATABASE_URL does not answer: {message}"
    raise error


def echo(text: str, *, err: bool = False) -> None:
    """Print a line for people: what users have named or written in it is no command to the terminal.

    Data go to standard output, and with `err` what is said about them to standard error.
    """
    click.echo(printable(text), err=err)
