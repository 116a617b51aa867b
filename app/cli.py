"""The command line, noun then verb; every command calls what the other doors call, and needs no broker."""

import json
import os
import socket

import click

from app import clock
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Failed, Idle, Postponed
from app.config import load_settings
from app.context import Context
from app.db import session_scope
from app.logs import configure_logs
from app.maintenance import orphan_scan
from app.maintenance import sweep as maintenance
from app.runtime.hosts.abandon import CannotPurge, purge_host
from app.services.workspaces import seed as seed_workspaces


@click.group()
@click.pass_context
def main(ctx: click.Context) -> None:
    """Operate the workspace control plane."""
    settings = load_settings()
    configure_logs(settings)
    ctx.obj = Context.open(settings)


@main.command()
@click.pass_obj
def seed(context: Context) -> None:
    """Make the built-in workspaces, if they are missing."""
    with session_scope(context.sessions) as session:
        made = seed_workspaces(session)
    click.echo(f"seeded: {', '.join(made) or 'nothing was missing'}")


@main.command()
@click.pass_obj
def openapi(context: Context) -> None:
    """Print the OpenAPI document."""
    from app.api.application import document  # noqa: PLC0415 -- the other commands need no web framework

    click.echo(json.dumps(document(), indent=2))
    del context


@main.group()
def cleanup() -> None:
    """Deletions and what keeps them going."""


@cleanup.command()
@click.pass_obj
def run(context: Context) -> None:
    """Work on everything that is due, in this process, until nothing is."""
    owner = f"cli@{socket.gethostname()}/{os.getpid()}"
    while not isinstance(outcome := run_slice(context, owner=owner), Idle):
        match outcome:
            case Postponed(reason, _, retry_in_s):
                click.echo(f"postponed for {retry_in_s:.0f} s: {reason}")
            case Failed(reason):
                click.echo(f"FAILED: {reason}")
            case _:
                click.echo(outcome.summary)
    click.echo(outcome.why)


@cleanup.command()
@click.pass_obj
def sweep(context: Context) -> None:
    """Reopen and ring for what is due."""
    click.echo(str(maintenance.sweep(context, now=clock.now())))


@main.group()
def store() -> None:
    """The bytes of filesets."""


@store.command()
@click.pass_obj
def scan(context: Context) -> None:
    """Look for what deleted workspaces and deployments left behind; exit 1 if there is anything."""
    try:
        click.echo(orphan_scan.scan_for_orphans(context, now=clock.now()))
    except orphan_scan.OrphansFound as found:
        raise click.ClickException(str(found)) from None


@main.group()
def runtime() -> None:
    """Hosts on which jobs and deployments run."""


@runtime.command("purge")
@click.argument("name")
@click.pass_obj
def purge(context: Context, name: str) -> None:
    """Give up what ran on host NAME, which is gone for good and cannot say that nothing of it is left."""
    try:
        with session_scope(context.sessions) as session:
            purged = purge_host(session, name, now=clock.now())
    except CannotPurge as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"given up on host '{name}': jobs {purged.jobs}, deployments {purged.deployments}")


if __name__ == "__main__":
    main()
