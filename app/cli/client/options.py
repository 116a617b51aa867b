"""What commands are given: the API, the connections, and the options and values that they share."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click
from click.core import ParameterSource

from app.cli.client.server import Server, token_of
from app.times import parse_time

if TYPE_CHECKING:
    from app.context import Context

P = ParamSpec("P")
T = TypeVar("T")

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def with_api(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the API, that of a server or, with `--direct`, of this process."""

    @click.option(
        "--server",
        envvar="WORKSPACES_SERVER",
        show_envvar=True,
        default="http://localhost:8080",
        show_default=True,
        metavar="URL",
        help="The server to ask, with the token of WORKSPACES_TOKEN or of a file (WORKSPACES_TOKEN_FILE).",
    )
    @click.option(
        "--direct",
        is_flag=True,
        help="Ask no server: work on the database of the settings, as an administrator of the platform.",
    )
    @click.pass_context
    def run(ctx: click.Context, /, *, server: str, direct: bool, **options: Any) -> None:
        if not direct:
            ctx.invoke(command, Server(server, token_of()), **options)
            return
        if ctx.get_parameter_source("server") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--direct asks no server: leave out --server.")
        from app.cli.client.database import Database
        from app.cli.direct import context_of, in_one_line

        with in_one_line():
            ctx.invoke(command, Database(context_of(ctx)), **options)

    return update_wrapper(run, command)


def with_context(command: Callable[Concatenate[Context, P], T]) -> Callable[P, T]:
    """Give a command the connections that the settings name."""

    @click.pass_context
    def run(ctx: click.Context, /, *args: P.args, **options: P.kwargs) -> T:
        from app.cli.direct import context_of, in_one_line

        with in_one_line():
            return ctx.invoke(command, context_of(ctx), *args, **options)

    return update_wrapper(run, command)


class Duration(click.ParamType[float]):
    """Seconds, or a number with s, m, h or d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Its seconds."""
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", str(value))
        if not found:
            self.fail(
                f"'{value}' is no duration: give a number with s, m, h or d, such as 90s or 48h.", param, ctx
            )
        return float(found[1]) * _UNITS[found[2]]


class Time(click.ParamType[str]):
    """A time in ISO 8601, in UTC unless it says otherwise."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The same with its offset, as the API takes it."""
        try:
            return parse_time(str(value), zone=UTC).isoformat()
        except ValueError as error:
            self.fail(f"'{value}' is no time: {error}; give it as 2026-03-01T12:00:00Z.", param, ctx)
