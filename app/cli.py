"""The command line, noun then verb. Its commands call the same functions as the API and need no broker."""

import json
import os
import socket
from collections.abc import Callable
from datetime import datetime
from functools import partial, update_wrapper
from getpass import getuser
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
from psycopg.errors import InsufficientPrivilege, LockNotAvailable, UndefinedColumn, UndefinedTable
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import distribution
from app.access.authorize import Actor
from app.access.permissions import Permission
from app.access.principal import MAX_EMAIL_CHARS, SERVICE_PREFIX, Principal, is_name
from app.access.roles import PLATFORM, Role
from app.cleanup import control
from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Failed, Idle, Postponed
from app.config import load_settings
from app.context import Context
from app.db import WRONG_SERVER, Base, connect, session_scope, sessions_of, transact
from app.errors import DomainError
from app.logs import configure_logs, printable, without_values
from app.maintenance import orphan_scan, replay
from app.maintenance import sweep as maintenance
from app.models import AuditRecord
from app.postgres import UnfitServer, is_behind_pooler, provide_role, set_limits
from app.runtime.hosts.purge import CannotPurge, purge_host
from app.services import members
from app.services.secrets.encryption import Keyring
from app.services.secrets.rotation import rotate
from app.services.workspaces import seed
from app.store_identity import StoreIdentity
from app.version import VERSION

_OPERATOR = f"{SERVICE_PREFIX}cli@{socket.gethostname()}"
"""The actor of what a command does, in the audit log. No token can claim this prefix."""

P = ParamSpec("P")
T = TypeVar("T")


class _Commands(click.Group):
    """Says in one line what the operator can mend; anything else is a bug, and has its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if type(error) is not click.ClickException:
                raise  # of click itself, about the arguments
            raise click.ClickException(printable(error.message)) from None
        except PoolTimeout:
            raise click.ClickException(
                "the database of WORKSPACES_DATABASE_URL has no connection left"
            ) from None
        except UnfitServer as error:
            raise click.ClickException(f"{WRONG_SERVER}: {error}") from None
        except DBAPIError as error:
            raise click.ClickException(_describe(error)) from None


def _describe(error: DBAPIError) -> str:
    message = " ".join(without_values(error.orig or error).split())
    if isinstance(error.orig, UndefinedTable | UndefinedColumn):
        return (
            f"the schema of the database is not that of this release; run `workspaces db upgrade` ({message})"
        )
    match error.orig:
        case UnfitServer():
            return f"{WRONG_SERVER}: {message}"
        case LockNotAvailable():
            return f"another transaction holds a lock for too long; nothing was changed ({message})"
        case InsufficientPrivilege():
            return f"the role of the database's URL may not do that: {message}"
    if isinstance(error, OperationalError):
        return f"the database of WORKSPACES_DATABASE_URL does not answer: {message}"
    raise error


def _print(text: str) -> None:
    """A line for people: what users have named or written in it is no command to the terminal."""
    click.echo(printable(text))


def with_context(command: Callable[Concatenate[Context, P], T]) -> Callable[P, T]:
    """Give a command the connections that the settings name."""

    @click.pass_context
    def run(ctx: click.Context, /, *args: P.args, **options: P.kwargs) -> T:
        if ctx.obj is None:
            try:
                ctx.obj = Context.open(load_settings())
            except (ImportError, ValueError) as error:
                raise click.ClickException(
                    "WORKSPACES_STORAGE_URL, WORKSPACES_DELETION_LOG_URL or WORKSPACES_DATABASE_URL cannot be used: "
                    f"{error}"
                ) from None
        return ctx.invoke(command, ctx.obj, *args, **options)

    return update_wrapper(run, command)


@click.group(cls=_Commands)
@click.version_option(VERSION, message="workspaces %(version)s")
def main() -> None:
    """Operate the workspace control plane."""
    configure_logs(load_settings())


@main.command()
@click.argument(
    "process", type=click.Choice(["web", "worker", "maintenance", "runtime", "beat", "flower"]), default="web"
)
def serve(process: str) -> None:
    """Run one PROCESS of the product, web unless another one is named, as its Procfile says."""
    distribution.become(process)


@main.group()
def db() -> None:
    """The database."""


@db.command()
def upgrade() -> None:
    """Bring the schema to this release, and make the built-in workspaces if they are missing.

    Where WORKSPACES_MIGRATION_DATABASE_URL has a role of its own, that of WORKSPACES_DATABASE_URL gets what it needs.
    """
    settings = load_settings()
    distribution.upgrade_database()
    tables = [table.name for table in Base.metadata.sorted_tables]
    provide_role(settings, tables, append_only=[AuditRecord.__tablename__])
    if is_behind_pooler(settings):
        set_limits(settings)
    with session_scope(sessions_of(connect(settings))) as session:
        made = seed(session)
    _print(f"the schema is that of {VERSION}; made: {', '.join(made) or 'nothing, none was missing'}")


@main.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from app.api.application import document  # noqa: PLC0415 -- the other commands need no web framework

    click.echo(json.dumps(document(), indent=2))


@main.group()
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
                _print(f"postponed for {retry_in_s:.0f} s: {reason}")
            case Failed(reason):
                _print(f"FAILED: {reason}")
            case _:
                _print(outcome.summary)
    _print(outcome.why)


@cleanup.command()
@with_context
def sweep(context: Context) -> None:
    """Do one round of maintenance: enqueue what is due, reopen what may be tried again; exit with 1 if a step fails."""
    swept = maintenance.sweep(context)
    _print(str(swept))
    if swept.failed:
        raise SystemExit(1)


@cleanup.command()
@with_context
def pause(context: Context) -> None:
    """Pause all destruction. Workspaces can be deleted all the same; they wait."""
    with session_scope(context.sessions) as session:
        changed = control.set_paused(session, paused=True, actor=_OPERATOR)
    _print("paused" if changed else "it was paused already")


@cleanup.command()
@with_context
def resume(context: Context) -> None:
    """Resume destruction."""
    with session_scope(context.sessions) as session:
        changed = control.set_paused(session, paused=False, actor=_OPERATOR)
    _print("resumed" if changed else "it was not paused")


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
            _print(f"{what}: {name} ({workspace_id})")
    _print(f"{replayed.recorded} finished deletions on record, {len(replayed.repeated)} {again}")
    if replayed.protected:
        raise SystemExit(1)


@main.group()
def store() -> None:
    """What is stored outside the database, and its orphans."""


@store.command()
@with_context
def scan(context: Context) -> None:
    """Search for orphans of deleted workspaces and deployments; exit with 1 if there are any."""
    try:
        _print(orphan_scan.scan_for_orphans(context))
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
    _print(
        f"adopted ({was}): the database knows {adopted.known} of the workspaces in it, and not {adopted.unknown} others"
    )


@main.group()
def principal() -> None:
    """People, groups and services, and what they may do."""


@principal.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.PLATFORM_ADMIN.value,
    show_default=True,
)
@click.option("--workspace", default=PLATFORM, show_default=True, help="Where the role is held.")
@with_context
def grant(context: Context, name: str, role: str, workspace: str) -> None:
    """Grant a role to NAME: an id or a group as the gateway or the token says it, or an email.

    So the first administrator of an installation is made.
    """
    operator = Actor(Principal(_OPERATOR, is_platform_admin=True), Permission.MEMBERS_WRITE)
    if not is_name(name, MAX_EMAIL_CHARS):
        raise click.BadParameter("must be printable, without white space at either end", param_hint="NAME")
    try:
        with session_scope(context.sessions) as session:
            member = members.add_member(session, operator, workspace, name, [Role(role)])
    except DomainError as error:
        raise click.ClickException(error.message) from None
    _print(f"{member.principal} in '{workspace}': {', '.join(member.roles)}")


@main.group()
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
    done = rotate(partial(transact, context.sessions), keys, _OPERATOR)
    _print(f"encrypted anew by the key {keys.first}: {done.rotated}")
    for key_id, number in done.left.items():
        remedy = (
            "which does not decrypt them: give these secrets values anew"
            if key_id in keys.others
            else "which is not in the file: put it back behind the first"
        )
        _print(f"left: {number} that were encrypted by the key {key_id}, {remedy}")
    if done.left:
        raise SystemExit(1)


@main.group()
def runtime() -> None:
    """Hosts on which jobs and deployments run."""


@runtime.command("purge")
@click.argument("name")
@with_context
def purge(context: Context, name: str) -> None:
    """Give up the jobs and deployments of host NAME, which is gone for good and cannot confirm that they ended."""
    try:
        with session_scope(context.sessions) as session:
            purged = purge_host(session, _OPERATOR, name)
    except CannotPurge as error:
        raise click.ClickException(str(error)) from None
    _print(f"given up on host '{name}': jobs {purged.jobs}, deployments {purged.deployments}")


if __name__ == "__main__":
    main()
