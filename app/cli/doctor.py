"""`workspaces doctor`: what is wrong with an installation, and what to do about it."""

import click

from app.cli.client.options import with_context
from app.cli.client.output import fields, show_list, show_one, with_format
from app.cli.outcome import Exit
from app.context import Context
from app.health.diagnosis import Finding, diagnose


@click.command()
@with_format
@with_context
def doctor(context: Context, *, format_: str) -> None:
    """Look at everything that the product needs, and say what is wrong; exit with 1 if anything is.

    It asks no server, and takes seconds whatever hangs. A wrong setting is one line and exit status 2.
    """
    findings = diagnose(context)
    if format_ == "table":
        # Not a column: it would stand out of sight, to the right of the longest message.
        show_one(
            format_,
            {one.name: _lines(one) for one in findings},
            fields(*(one.name for one in findings)),
            name="",
        )
    else:
        show_list(format_, [one.as_item() for one in findings], {}, name="name")
    if not all(one.ok for one in findings):
        raise click.exceptions.Exit(Exit.ERROR)


def _lines(finding: Finding) -> list[str]:
    return [finding.message, f"remedy: {finding.remedy}"] if finding.remedy else [finding.message]
