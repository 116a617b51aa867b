"""What the commands share that work on the database themselves: their actor, and their connections."""

import socket
from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec, TypeVar

import click

from app.access.principal import SERVICE_PREFIX
from app.config import load_settings
from app.context import Context

OPERATOR = f"{SERVICE_PREFIX}cli@{socket.gethostname()}"
"""The actor of what a command does, in the audit log. No token can claim this prefix."""

P = ParamSpec("P")
T = TypeVar("T")


def with_context(command: Callable[Concatenate[Context, P], T]) -> Callable[P, T]:
    """Give a command the connections that the settings name."""

    @click.pass_context
    def run(ctx: click.Context, /, *args: P.args, **options: P.kwargs) -> T:
        if ctx.obj is None:
            try:
                ctx.obj = Context.open(load_settings())
            except (ImportError, ValueError) as error:
                raise click.ClickException(
                    "WORKSPACES_STORAGE_URL, WORKSPACES_DELETION_LOG_URL or WORKSPACES_DATABASE_URL cannot be used: "
                    f"{error}"
                ) from None
        return ctx.invoke(command, ctx.obj, *args, **options)

    return update_wrapper(run, command)
