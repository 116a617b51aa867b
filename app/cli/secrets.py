"""`workspaces secrets`: the keys that encrypt them."""

from functools import partial

import click

from app.cli.client.options import with_context
from app.cli.direct import OPERATOR
from app.cli.outcome import echo
from app.context import Context
from app.db import transact
from app.errors import DomainError
from app.services.secrets.encryption import Keyring
from app.services.secrets.rotation import rotate


@click.group()
def secrets() -> None:
    """Secrets of workspaces."""


@secrets.command("rotate")
@with_context
def rotate_secrets(context: Context) -> None:
    """Encrypt the values of all secrets anew, by the first key of WORKSPACES_SECRETS_KEY_FILE.

    Then the other keys may be taken out of the file, unless it exits with 1: it says why.
    """
    try:
        keys = Keyring.read(context.settings)
    except DomainError as error:
        raise click.ClickException(error.message) from None
    done = rotate(partial(transact, context.sessions), keys, OPERATOR)
    echo(f"encrypted anew by the key {keys.first}: {done.rotated}")
    for key_id, number in done.left.items():
        remedy = (
            "which does not decrypt them: give these secrets values anew"
            if key_id in keys.others
            else "which is not in the file: put it back behind the first"
        )
        echo(f"left: {number} that were encrypted by the key {key_id}, {remedy}")
    if done.left:
        raise SystemExit(1)
