"""`workspaces principal`: who may do what."""

from functools import partial

import click

from app.access.authorize import Actor
from app.access.forget import begin_erasure, erase, names_of
from app.access.permissions import Permission
from app.access.principal import MAX_EMAIL_CHARS, Principal, is_name
from app.access.roles import OTHER_NAMES, PLATFORM, Role
from app.cli.client.options import with_context
from app.cli.direct import OPERATOR
from app.cli.outcome import echo
from app.context import Context
from app.db import session_scope, transact
from app.errors import DomainError
from app.services import members


@click.group()
def principal() -> None:
    """People, groups and services, and what they may do."""


@principal.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([*(role.value for role in Role), *OTHER_NAMES]),
    default=Role.PLATFORM_ADMIN.value,
    show_default=True,
)
@click.option("--workspace", default=PLATFORM, show_default=True, help="Where the role is held.")
@with_context
def grant(context: Context, name: str, role: str, workspace: str) -> None:
    """Grant a role to NAME: an id or a group as the gateway or the token says it, or an email.

    So the first administrator of an installation is made.
    """
    operator = Actor(Principal(OPERATOR, is_platform_admin=True), Permission.MEMBERS_WRITE)
    if not is_name(name, MAX_EMAIL_CHARS):
        raise click.BadParameter("must be printable, without white space at either end", param_hint="NAME")
    try:
        with session_scope(context.sessions) as session:
            member = members.add_member(session, operator, workspace, name, [Role(role)])
    except DomainError as error:
        raise click.ClickException(error.message) from None
    echo(f"{member.principal} in '{workspace}': {', '.join(member.roles)}")


@principal.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_context
def forget(context: Context, name: str, *, yes: bool) -> None:
    """Put a pseudonym in the place of NAME, an id or an email, and of its other ids and emails, wherever they are kept.

    It cannot be undone. What was interrupted goes on when the command is repeated. Refused while there is still a role,
    an access key or an unfinished deletion, or a subscription that sends it e-mail.
    """
    try:
        with session_scope(context.sessions) as session:
            names = names_of(session, name)
        if not yes:
            click.confirm(f"Forget {', '.join(names)} for good?", abort=True, err=True)
        with session_scope(context.sessions) as session:
            erasure = begin_erasure(session, names)
    except DomainError as error:
        raise click.ClickException(error.message) from None
    changed = erase(partial(transact, context.sessions), erasure, actor=OPERATOR)
    echo(f"forgotten, from now on {erasure.pseudonym}: {', '.join(erasure.names)}")
    for table, number in changed.items():
        echo(f"{table}: {number}")
