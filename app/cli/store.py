"""`workspaces store`: the bytes of filesets, and whose they are."""

from getpass import getuser

import click

from app.cli.client.options import with_context
from app.cli.outcome import echo
from app.context import Context
from app.maintenance import orphan_scan
from app.store_identity import StoreIdentity


@click.group()
def store() -> None:
    """What is stored outside the database, and its orphans."""


@store.command()
@with_context
def scan(context: Context) -> None:
    """Search for orphans of deleted workspaces and deployments; exit with 1 if there are any."""
    try:
        echo(orphan_scan.scan_for_orphans(context))
    except orphan_scan.OrphansFound as found:
        raise click.ClickException(str(found)) from None


@store.command()
@click.option(
    "--empty", is_flag=True, help="Adopt it although none of the files that it should hold are in it."
)
@with_context
def adopt(context: Context, *, empty: bool) -> None:
    """Take the store that WORKSPACES_STORAGE_URL names for the one of this database, whatever its marker says.

    After a restore from a backup, a move to another store, or a copy of the database.
    """
    try:
        adopted = StoreIdentity(context.sessions).adopt(context.store, actor=getuser(), is_empty_meant=empty)
    except OSError as error:
        raise click.ClickException(str(error)) from None
    was = "it had a marker" if adopted.had_marker else "it had no marker"
    echo(
        f"adopted ({was}): the database knows {adopted.known} of the workspaces in it, and not {adopted.unknown} others"
    )
