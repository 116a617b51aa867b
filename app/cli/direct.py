"""What the commands share that work on the database themselves: their actor, and their connections."""

import socket
from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec, TypeVar

import click

from app.access.principal import SERVICE_PREFIX
from app.config import load_settings
from app.context import Context
from app.dispatch import BackgroundPublisher

OPERATOR = f"{SERVICE_PREFIX}cli@{socket.gethostname()}"
"""The actor of what a command does, in the audit log. No token can claim this prefix."""

P = ParamSpec("P")
T = TypeVar("T")


def context_of(ctx: click.Context) -> Context:
    """The connections that the settings name, for the command of `ctx` and those below it."""
    if ctx.obj is None:
        try:
            context = Context.open(load_settings())
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


def with_context(command: Callable[Concatenate[Context, P], T]) -> Callable[P, T]:
    """Give a command the connections that the settings name."""

    @click.pass_context
    def run(ctx: click.Context, /, *args: P.args, **options: P.kwargs) -> T:
        return ctx.invoke(command, context_of(ctx), *args, **options)

    return update_wrapper(run, command)
