"""`workspaces doctor`: what is wrong with an installation, and what to do about it."""

import click

from app.cli.client.output import fields, show_list, with_format
from app.cli.direct import with_context
from app.cli.outcome import Exit
from app.context import Context
from app.health.diagnosis import diagnose

_LINE = fields("name", "message", "remedy")


@click.command()
@with_format
@with_context
def doctor(context: Context, *, format_: str) -> None:
    """Look at everything that the product needs, and say what is wrong; exit with 1 if anything is.

    It asks no server, and takes seconds whatever hangs. A wrong setting is one line and exit status 2.
    """
    findings = diagnose(context)
    show_list(format_, [one.as_item() for one in findings], _LINE, name="name")
    if not all(one.ok for one in findings):
        raise click.exceptions.Exit(Exit.ERROR)
