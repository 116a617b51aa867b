"""The hosts that run jobs and deployments, and what becomes of theirs when one is gone for good."""

from flask import Response

from app.access.permissions import Permission
from app.console.page import Fields, PageRequest, Pages
from app.errors import BadRequest
from app.http.field_types import ShortText
from app.services.hosts.overview import hosts
from app.services.hosts.purge import purge_host

pages = Pages()


class Purge(Fields):
    """The name of the host as somebody has typed it."""

    confirm: ShortText = ""


@pages.add("GET", "/hosts", permission=Permission.HOSTS_READ, area="jobs")
def list_hosts(call: PageRequest) -> Response:
    """Every host that is in use or was seen within an hour."""
    return call.page("hosts.html", hosts=call.read(lambda session: hosts(session, call.context.settings)))


@pages.add(
    "POST", "/hosts/<host>/purge", permission=Permission.HOSTS_PURGE, area="jobs", back="/console/hosts"
)
def purge(call: PageRequest, host: str, form: Purge) -> Response:
    """Give up what is on a host."""
    if form.confirm != host:
        raise BadRequest(f"Nothing was purged: type '{host}' to confirm, exactly as it is written.")
    purged = call.transact(lambda session: purge_host(session, call.actor, host))
    return call.went(
        f"{host} is given up: {purged.jobs} jobs and {purged.deployments} deployments were on it.",
        "/console/hosts",
    )
