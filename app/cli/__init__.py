"""The command line, noun then verb: a module for each noun.

Its commands call the same functions as the API and need no broker.
"""

import click

from app.cli import cleanup, db, principal, product, runtime, secrets, store
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
    db.db,
    cleanup.cleanup,
    store.store,
    principal.principal,
    runtime.runtime,
    secrets.secrets,
):
    main.add_command(_command)
