"""How a command ends: one line for what the operator can mend; anything else is a bug, and has its traceback."""

from typing import Any

import click
from psycopg.errors import InsufficientPrivilege, LockNotAvailable, UndefinedColumn, UndefinedTable
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.db import WRONG_SERVER
from app.logs import printable, without_values
from app.postgres import UnfitServer


def echo(text: str) -> None:
    """Print a line for people: what users have named or written in it is no command to the terminal."""
    click.echo(printable(text))


class Commands(click.Group):
    """Says in one line what the operator can mend; anything else is a bug, and has its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if type(error) is not click.ClickException:
                raise  # of click itself, about the arguments
            raise click.ClickException(printable(error.message)) from None
        except PoolTimeout:
            raise click.ClickException(
                "the database of WORKSPACES_DATABASE_URL has no connection left"
            ) from None
        except UnfitServer as error:
            raise click.ClickException(f"{WRONG_SERVER}: {error}") from None
        except DBAPIError as error:
            raise click.ClickException(_describe(error)) from None


def _describe(error: DBAPIError) -> str:
    message = " ".join(without_values(error.orig or error).split())
    if isinstance(error.orig, UndefinedTable | UndefinedColumn):
        return (
            f"the schema of the database is not that of this release; run `workspaces db upgrade` ({message})"
        )
    match error.orig:
        case UnfitServer():
            return f"{WRONG_SERVER}: {message}"
        case LockNotAvailable():
            return f"another transaction holds a lock for too long; nothing was changed ({message})"
        case InsufficientPrivilege():
            return f"the role of the database's URL may not do that: {message}"
    if isinstance(error, OperationalError):
        return f"the database of WORKSPACES_DATABASE_URL does not answer: {message}"
    raise error
