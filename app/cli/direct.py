"""What the commands share that work on the database themselves: their actor, their connections, and how they fail."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import click
from psycopg.errors import InsufficientPrivilege, LockNotAvailable, UndefinedColumn, UndefinedTable
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.access.principal import SERVICE_PREFIX
from app.cli.outcome import Ended
from app.config import load_settings
from app.context import Context
from app.db import WRONG_SERVER
from app.dispatch import BackgroundPublisher
from app.logs import configure_logs, without_values
from app.postgres import UnfitServer

OPERATOR = f"{SERVICE_PREFIX}cli@{socket.gethostname()}"
"""The actor of what a command does, in the audit log. No token can claim this prefix."""


def context_of(ctx: click.Context) -> Context:
    """The connections that the settings name, for the command of `ctx` and those below it. Sets up the logs, too."""
    if ctx.obj is None:
        settings = load_settings()
        configure_logs(settings)
        try:
            context = Context.open(settings)
        except (ImportError, ValueError) as error:
            raise click.ClickException(
                "WORKSPACES_STORAGE_URL, WORKSPACES_DELETION_LOG_URL or WORKSPACES_DATABASE_URL cannot be used: "
                f"{error}"
            ) from None
        if isinstance(context.publisher, BackgroundPublisher):
            ctx.call_on_close(context.publisher.flush)
        ctx.obj = context
    found: Context = ctx.obj
    return found


@contextmanager
def in_one_line() -> Iterator[None]:
    """End the command with one line if the database does not serve. A bug has its traceback."""
    try:
        yield
    except (PoolTimeout, UnfitServer, DBAPIError) as error:
        raise Ended(describe(error)) from None


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
