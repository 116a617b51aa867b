"""`workspaces cleanup`: the work on deletions, and its switch."""

from __future__ import annotations

import os
import socket
from datetime import datetime
from getpass import getuser
from typing import TYPE_CHECKING

import click

from app.cli.client.api import Api, Item
from app.cli.client.options import with_api, with_context
from app.cli.client.output import fields, show_one, with_format
from app.cli.outcome import echo

if TYPE_CHECKING:
    from app.context import Context

_CONTROL = "/apis/entities/v2/cleanup-control"


def _held(control: Item) -> list[str]:
    return [f"{one['requested_by']!r} {one['count']} since {one['since']}" for one in control["held"]]


_SWITCH = fields("paused", "paused_by", "paused_at", "reason", "last_sweep_at", held=_held)


@click.group()
def cleanup() -> None:
    """The work on all deletions, and its switch."""


@cleanup.command()
@with_context
def run(context: Context) -> None:
    """Clean up everything that is due, in this process, until nothing is left."""
    from app.cleanup.engine import run_slice
    from app.cleanup.outcomes import Failed, Idle, Postponed

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
    from app.maintenance import sweep as maintenance

    swept = maintenance.sweep(context)
    echo(str(swept))
    if swept.failed:
        raise SystemExit(1)


@cleanup.command()
@with_format
@with_api
def status(api: Api, *, format_: str) -> None:
    """Say whether destruction is paused, whose deletions are held, and when the sweep last ran."""
    show_one(format_, api.ask("GET", _CONTROL), _SWITCH, name="paused")


@cleanup.command()
@with_format
@with_api
def pause(api: Api, *, format_: str) -> None:
    """Pause all destruction. Workspaces can be deleted all the same; they wait."""
    show_one(format_, api.ask("PUT", _CONTROL, body={"paused": True}), _SWITCH, name="paused")


@cleanup.command()
@with_format
@with_api
def resume(api: Api, *, format_: str) -> None:
    """Resume destruction. What the breaker holds stays held."""
    show_one(format_, api.ask("PUT", _CONTROL, body={"paused": False}), _SWITCH, name="paused")


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
    from app.maintenance import replay

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
