"""`workspaces cleanup`: the work on deletions, and its switch."""

import os
import socket
from datetime import datetime
from getpass import getuser

import click

from app.cleanup import control
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Failed, Idle, Postponed
from app.cli.direct import OPERATOR, with_context
from app.cli.outcome import echo
from app.context import Context
from app.db import session_scope
from app.maintenance import replay
from app.maintenance import sweep as maintenance


@click.group()
def cleanup() -> None:
    """Deletions of workspaces."""


@cleanup.command()
@with_context
def run(context: Context) -> None:
    """Clean up everything that is due, in this process, until nothing is left."""
    owner = f"cli@{socket.gethostname()}/{os.getpid()}"
    while not isinstance(outcome := run_slice(context, owner=owner), Idle):
        match outcome:
            case Postponed(reason, _, retry_in_s):
                echo(f"postponed for {retry_in_s:.0f} s: {reason}")
            case Failed(reason):
                echo(f"FAILED: {reason}")
            case _:
                echo(outcome.summary)
    echo(outcome.why)


@cleanup.command()
@with_context
def sweep(context: Context) -> None:
    """Do one round of maintenance: enqueue what is due, reopen what may be tried again; exit with 1 if a step fails."""
    swept = maintenance.sweep(context)
    echo(str(swept))
    if swept.failed:
        raise SystemExit(1)


@cleanup.command()
@with_context
def pause(context: Context) -> None:
    """Pause all destruction. Workspaces can be deleted all the same; they wait."""
    with session_scope(context.sessions) as session:
        changed = control.set_paused(session, paused=True, actor=OPERATOR)
    echo("paused" if changed else "it was paused already")


@cleanup.command()
@with_context
def resume(context: Context) -> None:
    """Resume destruction."""
    with session_scope(context.sessions) as session:
        changed = control.set_paused(session, paused=False, actor=OPERATOR)
    echo("resumed" if changed else "it was not paused")


@cleanup.command("replay")
@click.option(
    "--since",
    type=click.DateTime(),
    help="Read only the months from this time on, in UTC: when the backup was made.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted again.")
@click.option(
    "--ignore-protection",
    is_flag=True,
    help="Delete also those that the backup has as protected from deletion.",
)
@with_context
def replay_deletions(
    context: Context, *, since: datetime | None, dry_run: bool, ignore_protection: bool
) -> None:
    """Delete again what a restored backup has brought back, as the deletion log says; before web starts.

    Exits with 1 if it leaves a protected workspace alone.
    """
    try:
        replayed = replay.replay(
            context,
            actor=getuser(),
            since=since,
            is_dry_run=dry_run,
            is_protection_ignored=ignore_protection,
        )
    except replay.NothingRecorded:
        raise click.ClickException(
            "the deletion log is empty: nothing was ever deleted, or WORKSPACES_DELETION_LOG_URL is not the log's"
        ) from None
    except OSError as error:
        raise click.ClickException(f"the deletion log cannot be read: {error}") from None
    again = "would be deleted again" if dry_run else "deleted again"
    for what, found in (
        (again, replayed.repeated),
        ("already being deleted", replayed.under_way),
        ("PROTECTED, left alone", replayed.protected),
    ):
        for workspace_id, name in found.items():
            echo(f"{what}: {name} ({workspace_id})")
    echo(f"{replayed.recorded} finished deletions on record, {len(replayed.repeated)} {again}")
    if replayed.protected:
        raise SystemExit(1)
