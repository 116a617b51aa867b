"""`workspaces runtime`: the hosts of jobs and deployments."""

from urllib.parse import quote

import click

from app.cli.client.api import Api
from app.cli.client.options import with_api
from app.cli.client.output import fields, show_list, show_one, with_format

_HOSTS = "/apis/jobs/v2/hosts"
_ROW = fields("host", "is_alive", "last_seen_at", "job_slots", "jobs_running", "jobs", "deployments")
_PURGED = fields("host", "jobs", "deployments")


@click.group()
def runtime() -> None:
    """Hosts on which jobs and deployments run."""


@runtime.command("hosts")
@with_format
@with_api
def list_hosts(api: Api, *, format_: str) -> None:
    """List the hosts that jobs or deployments are on, or whose worker was alive within an hour."""
    show_list(format_, api.ask("GET", _HOSTS)["data"], _ROW, name="host")


@runtime.command()
@click.argument("name")
@with_format
@with_api
def purge(api: Api, name: str, *, format_: str) -> None:
    """Give up the jobs and deployments of host NAME, which is gone for good and cannot confirm that they ended."""
    show_one(format_, api.ask("POST", f"{_HOSTS}/{quote(name, safe='')}/purge"), _PURGED, name="host")
