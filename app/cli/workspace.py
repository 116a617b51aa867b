"""`workspaces workspace`: workspaces, and their deletion."""

from urllib.parse import quote

import click

from app.cli.client.api import Api, Item, Refused, items_of
from app.cli.client.consent import require_answer, require_terminal
from app.cli.client.options import Duration, with_api
from app.cli.client.output import fields, in_words, show_list, show_one, with_format
from app.cli.client.waiting import wait_for
from app.cli.outcome import Ended, Exit, echo

WORKSPACES = "/apis/entities/v2/workspaces"

_ROW = fields("name", "description", "created_at", "created_by")
_ALL = fields("id", "name", "description", "created_at", "created_by", "updated_at", "updated_by")
_PREVIEW = fields("name", "id", "remaining", "bytes", "running_jobs", "running_deployments", "protected")
_BEGUN = fields("message", "id", "deletion_id")
_DELETED = fields("id", "workspace_name", "state", "requested_at", "finished_at", "deleted")


@click.group()
def workspace() -> None:
    """Workspaces."""


@workspace.command("list")
@click.option("--filter", "filter_", help='The filter of the API, such as `name~"ml"`.')
@click.option(
    "--sort", default="name", show_default=True, help="A field; `-created_at` begins with the newest."
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@with_format
@with_api
def list_workspaces(api: Api, *, filter_: str | None, sort: str, limit: int, format_: str) -> None:
    """List the workspaces that you may read; those that are being deleted are left out."""
    query = {"filter": filter_, "sort": sort}
    found = list(items_of(api, WORKSPACES, query, limit=limit, page_size=1000))
    show_list(format_, [item for item, _ in found], _ROW, name="name")
    if found and (total := found[-1][1]) > len(found):
        echo(f"{len(found)} of {total}; --limit shows more", err=True)


@workspace.command()
@click.argument("name")
@with_format
@with_api
def get(api: Api, name: str, *, format_: str) -> None:
    """Get the workspace NAME."""
    show_one(format_, api.ask("GET", _path(name)), _ALL, name="name")


@workspace.command()
@click.argument("name")
@click.option("--description")
@with_format
@with_api
def create(api: Api, name: str, *, description: str | None, format_: str) -> None:
    """Create the workspace NAME."""
    made = api.ask("POST", WORKSPACES, body={"name": name, "description": description})
    show_one(format_, made, _ALL, name="name")


@workspace.command()
@click.argument("name")
@click.option("--wait", is_flag=True, help="Return when everything is gone, or say why it is not.")
@click.option("--timeout", type=Duration(), default="10m", show_default=True, help="How long to wait.")
@click.option("--grace", type=Duration(), help="Grace period, if it is longer than that of the settings.")
@click.option("--reason", help="Kept with the deletion and in the audit log.")
@click.option("--dry-run", is_flag=True, help="Only show what would be destroyed.")
@click.option("--yes", is_flag=True, help="Delete without asking for the name.")
@with_format
@with_api
def delete(
    api: Api,
    name: str,
    *,
    wait: bool,
    timeout: float,
    grace: float | None,
    reason: str | None,
    dry_run: bool,
    yes: bool,
    format_: str,
) -> None:
    """Delete the workspace NAME and everything in it. Access ends at once, for everybody.

    On a terminal it shows what is in the workspace and asks for the name. With --wait: exit status 5 if the deletion is
    FAILED, 6 if it goes on after the timeout.
    """
    if dry_run:
        show_one(format_, _preview(api, name), _PREVIEW, name="name")
        return
    query = {"grace_seconds": grace, "reason": reason}
    if not yes:
        query["id"] = _confirmed(api, name)
    begun = api.ask("DELETE", _path(name), query)
    if not wait:
        show_one(format_, begun, _BEGUN, name="deletion_id")
        return
    echo(f"deletion {begun['deletion_id']} has begun; all access to '{name}' has ended", err=True)
    show_one(format_, wait_for(api, begun["deletion_id"], timeout_s=timeout), _DELETED, name="id")


def _path(name: str) -> str:
    return f"{WORKSPACES}/{quote(name, safe='')}"


def _preview(api: Api, name: str) -> Item:
    """What a deletion would destroy, with the name and the id of the workspace."""
    try:
        found = api.ask("GET", _path(name))
        held = api.ask("GET", f"{_path(name)}/deletion-preview")
    except Refused as error:
        if error.status == 404:
            where = f"workspaces deletion list{api.option}"
            raise Ended(f"{error.message}; if it is being deleted, see `{where}`", Exit.NOT_FOUND) from None
        raise
    return {"id": found["id"], "name": found["name"], **held}


def _confirmed(api: Api, name: str) -> str:
    """The id of the workspace that a person has seen and named. Raises Ended if nobody has."""
    require_terminal("to destroy everything in a workspace")
    held = _preview(api, name)
    about = "at least " if "bytes" in held["at_least"] else ""
    echo(f"'{name}' holds: {in_words(held['remaining'])}; {about}{held['bytes']} bytes.", err=True)
    if held["running_jobs"] or held["running_deployments"]:
        echo(
            f"Running now: {held['running_jobs']} jobs, {held['running_deployments']} deployments.", err=True
        )
    require_answer("To destroy all of it, type the name", name)
    # What was shown is what goes, also if another workspace has taken the name meanwhile.
    return str(held["id"])
