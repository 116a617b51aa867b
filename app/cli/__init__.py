"""The command line, noun then verb: a module for each noun.

Those of `workspace`, `deletion`, `cleanup`, `runtime` and `notify` that have a route ask a server or, with `--direct`,
call the same route in their own process; all others work on the database. None needs the broker.
"""

import click

from app.cli import (
    cleanup,
    db,
    deletion,
    doctor,
    notify,
    principal,
    product,
    runtime,
    secrets,
    store,
    workspace,
)
from app.cli.outcome import Commands
from app.config import load_settings
from app.logs import configure_logs
from app.version import VERSION


@click.group(cls=Commands)
@click.version_option(VERSION, message="workspaces %(version)s")
def main() -> None:
    """Operate the workspace control plane."""
    configure_logs(load_settings())


for _command in (
    product.serve,
    product.openapi,
    doctor.doctor,
    db.db,
    workspace.workspace,
    deletion.deletion,
    cleanup.cleanup,
    store.store,
    principal.principal,
    runtime.runtime,
    notify.notify,
    secrets.secrets,
):
    main.add_command(_command)
