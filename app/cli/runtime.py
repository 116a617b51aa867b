"""`workspaces runtime`: the hosts of jobs and deployments."""

import click

from app.cli.direct import OPERATOR, with_context
from app.cli.outcome import echo
from app.context import Context
from app.db import session_scope
from app.runtime.hosts.purge import CannotPurge, purge_host


@click.group()
def runtime() -> None:
    """Hosts on which jobs and deployments run."""


@runtime.command("purge")
@click.argument("name")
@with_context
def purge(context: Context, name: str) -> None:
    """Give up the jobs and deployments of host NAME, which is gone for good and cannot confirm that they ended."""
    try:
        with session_scope(context.sessions) as session:
            purged = purge_host(session, OPERATOR, name)
    except CannotPurge as error:
        raise click.ClickException(str(error)) from None
    echo(f"given up on host '{name}': jobs {purged.jobs}, deployments {purged.deployments}")
