"""`workspaces deletion`: following deletions, and what an operator does with those that fail."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import click

from app.cli.client.api import Api, Item, items_of
from app.cli.client.bulk import ask_each
from app.cli.client.events import Events
from app.cli.client.options import Duration, Time, with_api
from app.cli.client.output import cell, fields, show_list, show_one, with_format
from app.cli.client.waiting import DELETIONS, causes, failures, how_far, wait_for
from app.cli.outcome import echo
from app.lifecycle import DeletionState, FailureClass

_PAGE = 15
"""Deletions in a page. Each is described with what it fails of: of more, a request would cost over ten bare ones."""

_CAUSES = "/apis/entities/v2/deletion-causes"
_CAUSE = fields("deletions", "resources", "kind", "error_class", "oldest_failed_at", "cause")
_ROW = fields("id", "workspace_name", "state", "phase", "requested_by", "requested_at", how_far=how_far)
_ALL = fields(
    *("id", "workspace_name", "workspace_id", "state", "phase", "requested_by", "requested_at"),
    *("request_reason", "purge_after", "started_at", "finished_at", "attempts", "round", "next_run_at"),
    *("next_reattempt_at", "deleted", "remaining", "at_least", "eta_seconds", "running_jobs"),
    *("running_deployments", "reason"),
    causes=causes,
    failures=failures,
)


def _details(event: Item) -> str:
    return ", ".join(f"{name} {cell(value)}" for name, value in event["detail"].items())


_EVENT = fields("at", "actor", "event", detail=_details)


@click.group()
def deletion() -> None:
    """Deletions of workspaces."""


def _of_a_cause(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose FAILED deletions by what they fail for."""
    for name, help_ in (
        ("--cause", "Of FAILED deletions: only those of this cause, as `deletion causes` says it."),
        ("--kind", "Of FAILED deletions: only those with a failure of this kind."),
    ):
        command = click.option(name, help=help_)(command)
    return command


@deletion.command("list")
@click.option(
    "--all", "all_", is_flag=True, help="Those of everybody, or exit status 3 if you may not see them."
)
@click.option("--state", type=click.Choice([state.value for state in DeletionState]))
@click.option(
    "--class",
    "error_class",
    type=click.Choice([one.value for one in FailureClass]),
    help="Only those with a failure of this class.",
)
@click.option(
    "--as-of", type=Time(), help="With --state FAILED: only those that were FAILED at this time already."
)
@_of_a_cause
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@with_format
@with_api
def list_deletions(
    api: Api,
    *,
    all_: bool,
    state: str | None,
    error_class: str | None,
    as_of: str | None,
    kind: str | None,
    cause: str | None,
    limit: int,
    format_: str,
) -> None:
    """List deletions, the newest first: those that you requested, or all that you may see."""
    query = {
        "scope": "all" if all_ else None,
        "state": state,
        "error_class": error_class,
        "kind": kind,
        "cause": cause,
        "as_of": as_of,
    }
    looked_at = api.time()
    found = list(items_of(api, DELETIONS, query, limit=limit, page_size=_PAGE))
    show_list(format_, [item for item, _ in found], _ROW, name="id")
    total = found[-1][1] if found else 0
    echo(f"{len(found)} of {total}, as of {looked_at}", err=True)


@deletion.command("causes")
@click.option("--as-of", type=Time(), help="Only deletions that were FAILED at this time already.")
@with_format
@with_api
def list_causes(api: Api, *, as_of: str | None, format_: str) -> None:
    """List what FAILED deletions have in common, that of the most deletions first."""
    found = api.ask("GET", _CAUSES, {"as_of": as_of})
    show_list(format_, found["data"], _CAUSE, name="cause")
    echo(f"{found['deletions']} FAILED, as of {found['as_of']}", err=True)


@deletion.command()
@click.argument("id_", metavar="ID", type=click.UUID)
@with_format
@with_api
def get(api: Api, id_: UUID, *, format_: str) -> None:
    """Get the deletion ID: state, progress, failures and expected end."""
    show_one(format_, api.ask("GET", _path(id_)), _ALL, name="id")


@deletion.command()
@click.argument("id_", metavar="ID", type=click.UUID)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@with_format
@with_api
def events(api: Api, id_: UUID, *, limit: int, format_: str) -> None:
    """List the last events of the deletion ID, the oldest of them first."""
    show_list(format_, Events(api, str(id_)).last(limit), _EVENT, name="event")


@deletion.command()
@click.argument("id_", metavar="ID", type=click.UUID)
@click.option("--timeout", type=Duration(), help="How long to watch; without it, until the end.")
@with_api
def watch(api: Api, id_: UUID, *, timeout: float | None) -> None:
    """Print the events of the deletion ID as they happen, until it ends. Exit status as `wait`."""
    happened = Events(api, str(id_))

    def print_new() -> None:
        while found := happened.new():
            for event in found:
                actor = cell(event["actor"])
                echo(f"{event['at']}  {actor}  {event['event']}  {_details(event)}".rstrip())

    api.ask("GET", _path(id_))  # a server that never answered is not waited for
    wait_for(api, str(id_), timeout_s=timeout, on_look=print_new)


@deletion.command()
@click.argument("id_", metavar="ID", type=click.UUID)
@click.option("--timeout", type=Duration(), default="10m", show_default=True)
@with_format
@with_api
def wait(api: Api, id_: UUID, *, timeout: float, format_: str) -> None:
    """Return when everything of the deletion ID is gone. Exit status 5 if it is FAILED, 6 if it goes on."""
    api.ask("GET", _path(id_))  # as above
    show_one(format_, wait_for(api, str(id_), timeout_s=timeout), _ALL, name="id")


def _of_many(command: Callable[..., None]) -> Callable[..., None]:
    """The options of what can be done with one deletion, or with all that were FAILED at some time."""
    options: list[Callable[[Callable[..., None]], Callable[..., None]]] = [
        click.argument("id_", metavar="[ID]", type=click.UUID, required=False),
        click.option("--all", "all_", is_flag=True, help="All deletions that were FAILED at --as-of."),
        click.option(
            "--state",
            type=click.Choice([DeletionState.FAILED.value]),
            default=DeletionState.FAILED.value,
            show_default=True,
            help="With --all; no other state can be asked for.",
        ),
        click.option(
            "--class",
            "error_class",
            type=click.Choice([one.value for one in FailureClass]),
            help="With --all: only those with a failure of this class.",
        ),
        click.option("--as-of", type=Time(), help="With --all: when you looked, as `deletion list` says it."),
        click.option("--yes", is_flag=True, help="With --all: do it without asking."),
        with_format,
        with_api,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@deletion.command()
@_of_a_cause
@_of_many
def retry(api: Api, **which: Any) -> None:
    """Retry the FAILED deletion ID now, or all of them."""
    _operate(api, "retry", None, **which)


@deletion.command()
@click.option("--kind", required=True, help="Of the failing resource.")
@click.option("--resource-id", required=True, help="Of the failing resource; `*` for a kind as a whole.")
@click.option("--reason", required=True, help="Kept with the deletion and in the audit log.")
@_of_many
def skip(api: Api, *, kind: str, resource_id: str, reason: str, **which: Any) -> None:
    """Give up one failing resource of the FAILED deletion ID, or of all of them, and go on with the rest.

    What it stands for stays, on record.
    """
    _operate(api, "skip", {"kind": kind, "resource_id": resource_id, "reason": reason}, **which)


@deletion.command()
@click.option("--reason", required=True, help="Kept with the deletion and in the audit log.")
@_of_a_cause
@_of_many
def force(api: Api, *, reason: str, **which: Any) -> None:
    """Give up all that fails now of the FAILED deletion ID, or of all of them, and go on with the rest.

    What it stands for stays, on record.
    """
    _operate(api, "force", {"reason": reason}, **which)


@deletion.command()
@click.argument("id_", metavar="ID", type=click.UUID)
@click.option("--name", help="The name of the restored workspace, if its own is taken.")
@with_format
@with_api
def restore(api: Api, id_: UUID, *, name: str | None, format_: str) -> None:
    """Call the deletion ID off, before anything was destroyed: the workspace is as before."""
    body = {"name": name} if name else {}
    show_one(format_, api.ask("POST", f"{_path(id_)}/restore", body=body), _ALL, name="id")


def _operate(
    api: Api,
    verb: str,
    body: Any,
    *,
    id_: UUID | None,
    all_: bool,
    state: str,
    error_class: str | None,
    as_of: str | None,
    yes: bool,
    format_: str,
    kind: str | None = None,
    cause: str | None = None,
) -> None:
    if all_ == (id_ is not None):
        raise click.UsageError("Give the ID of one deletion, or --all.")
    if id_ is not None:
        asked = api.ask("POST", f"{_path(id_)}/{verb}", {"as_of": as_of}, body)
        show_one(format_, asked, _ALL, name="id")
        return
    if as_of is None:
        raise click.UsageError("--all needs --as-of, the time at which you looked: `deletion list` says it.")
    which = {"scope": "all", "state": state, "error_class": error_class, "kind": kind, "cause": cause}
    show_list(format_, ask_each(api, verb, body, which, as_of=as_of, is_agreed=yes), _ROW, name="id")


def _path(id_: UUID) -> str:
    return f"{DELETIONS}/{id_}"
