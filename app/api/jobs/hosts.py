"""Hosts with a runtime worker over HTTP."""

from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import Conflict, NotFound
from app.http.field_types import Resource
from app.http.route import RequestContext, Routes
from app.services.hosts.overview import hosts
from app.services.hosts.purge import purge_host

routes = Routes("hosts")
_HOSTS = "/apis/jobs/v2/hosts"


class Host(Resource):
    """A host, and how many jobs and deployments are on it."""

    host: str
    is_alive: bool
    last_seen_at: Timestamp | None
    job_slots: int
    jobs_running: int
    jobs: int
    deployments: int


class Hosts(Resource):
    """All hosts."""

    data: list[Host]


class PurgedHost(Resource):
    """How many jobs and deployments were on the purged host."""

    host: str
    jobs: int
    deployments: int


@routes.add("GET", _HOSTS, permission=Permission.HOSTS_READ, returns=Hosts, transaction=False)
def list_hosts(call: RequestContext) -> Hosts:
    """List the hosts that jobs or deployments are on, or whose runtime worker was alive within an hour."""
    found = call.read(lambda session: hosts(session, call.context.settings))
    return Hosts(data=[Host.from_row(one) for one in found])


@routes.add(
    "POST",
    f"{_HOSTS}/<host>/purge",
    permission=Permission.HOSTS_PURGE,
    returns=PurgedHost,
    raises=(NotFound, Conflict),
    transaction=False,
)
def purge(call: RequestContext, host: str) -> PurgedHost:
    """Give up the jobs and deployments of a host that is gone for good and cannot confirm that they ended.

    Its jobs end as `error`, its deployments are deleted, if that was requested, or wait for another host. It is refused
    while a runtime worker there has a lease.
    """
    purged = call.transact(lambda session: purge_host(session, call.actor, host))
    return PurgedHost.from_row(purged, host=host)
