"""Health, status, metrics, and the description of the API itself."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Any, Literal

from flask import Response, current_app, jsonify, render_template, request
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.access.authorize import Actor, is_platform_admin
from app.access.permissions import Permission
from app.config import Settings
from app.db import read
from app.errors import Busy, DomainError, Forbidden
from app.health.dependencies import check_health, why_not_ready
from app.health.metrics.exposition import exposition
from app.http.headers import STRICT_POLICY
from app.http.route import RequestContext, Routes
from app.http.views import Service
from app.logs import get_logger
from app.version import VERSION

log = get_logger(__name__)
routes = Routes("system")


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """The process can serve."""

    status: Literal["ready"] = "ready"


class NotReady(BaseModel):
    """A service or a process that does not work, and why."""

    name: str
    message: str


class Services(BaseModel):
    """The services that the product needs, by readiness."""

    ready: list[str]
    not_ready: list[NotReady]


class Controllers(BaseModel):
    """The background work, by health."""

    healthy: bool
    status: dict[str, bool]


class Status(BaseModel):
    """The state of the whole product."""

    status: Literal["healthy", "degraded", "unhealthy"]
    services: Services
    controllers: Controllers


class ClusterInfo(BaseModel):
    """The release that answers."""

    platform_version: str
    revision: str = Field(description="The same: releases are made of tags.")


class Places(BaseModel):
    """Where things are, as paths of this server."""

    name: str = "workspaces"
    version: str = VERSION
    console: str = "/console"
    api: str = "/docs"
    openapi: str = "/openapi.json"
    status: str = "/status"
    metrics: str = "/metrics"


@routes.add("GET", "/", permission=Permission.PUBLIC, returns=Places, transaction=False)
def say_where_things_are(call: RequestContext) -> Places | Response:  # noqa: ARG001 -- every handler takes the call
    """Say where things are; a browser is led to the console."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return Response(status=302, headers={"Location": "/console"})
    return Places()


@routes.add("GET", "/cluster-info", permission=Permission.PUBLIC, returns=ClusterInfo, transaction=False)
def cluster_info(call: RequestContext) -> ClusterInfo:  # noqa: ARG001 -- every handler takes the call
    """Get the version of this server."""
    return ClusterInfo(platform_version=VERSION, revision=VERSION)


@routes.add("GET", "/health/live", permission=Permission.PUBLIC, returns=Live, transaction=False)
def live(call: RequestContext) -> Live:  # noqa: ARG001 -- every handler takes the call
    """Check that the process answers."""
    return Live()


@routes.add(
    "GET", "/health/ready", permission=Permission.PUBLIC, returns=Ready, raises=(Busy,), transaction=False
)
def ready(call: RequestContext) -> Ready | Response:
    """Check that requests can be served: the database answers, and its schema is not older than this release."""
    if (why := why_not_ready(call.context)) is None:
        return Ready()
    log.warning("readiness.not_ready", reason=why)
    response = jsonify(detail={"status": "not_ready"})
    response.status_code = Busy.status
    return response


@routes.add("GET", "/status", permission=Permission.PUBLIC, returns=Status, transaction=False)
def status(call: RequestContext) -> Status:
    """Get the state of the whole product, including background work.

    It is `unhealthy` without the database or its schema; `degraded` while anything else does not work, destruction is
    paused, deletions are held or FAILED, no sweep runs, or a step of it fails. What is most likely the cause comes
    first. Texts of servers and names of hosts are for platform administrators, the bearer of the metrics token and,
    while authentication is off, this host.
    """
    health = check_health(call.context)
    is_open = _may_read_metrics(call.context.settings) or _is_platform_admin(
        call, asks_database=health.serves
    )
    not_ready = [
        NotReady(
            name=fault.name,
            message=f"{fault.message}: {fault.detail}" if is_open and fault.detail else fault.message,
        )
        for fault in health.faults
    ]
    does_well = bool(health.controllers) and all(health.controllers.values())
    is_healthy = does_well and not not_ready
    return Status(
        status="healthy" if is_healthy else "degraded" if health.serves else "unhealthy",
        services=Services(ready=health.ready, not_ready=not_ready),
        controllers=Controllers(healthy=does_well, status=health.controllers),
    )


def _is_platform_admin(call: RequestContext, *, asks_database: bool) -> bool:
    if not call.context.settings.auth_enabled:
        return False  # everybody would be one
    service: Service = current_app.extensions["service"]
    try:
        principal = service.authenticator.principal(request.headers.get)
        if principal.is_platform_admin or not asks_database:
            return principal.is_platform_admin
        actor = Actor(principal, Permission.METRICS_READ)
        question = select(is_platform_admin(actor.access)).params(actor.parameters)
        return bool(read(call.context.sessions, lambda session: session.scalar(question)))
    except (DomainError, SQLAlchemyError):
        return False


@routes.add(
    "GET",
    "/metrics",
    permission=Permission.METRICS_READ,
    raises=(Forbidden,),
    media_type="text/plain",
    transaction=False,
)
def read_metrics(call: RequestContext) -> Response:
    """Get the metrics in Prometheus' text format.

    They are for the bearer of the metrics token, platform administrators and, while authentication is off, this host.
    Without the database, those that are read from it are missing.
    """
    if not _may_read_metrics(call.context.settings) and not _is_platform_admin(call, asks_database=True):
        raise Forbidden(
            "Forbidden: metrics are for the bearer of WORKSPACES_METRICS_TOKEN, for platform administrators and, while "
            "authentication is off, for this host."
        )
    return Response(exposition(call.context), content_type=CONTENT_TYPE_LATEST)


def _may_read_metrics(settings: Settings) -> bool:
    # Behind a proxy on this host everybody comes from loopback.
    if not settings.auth_enabled and request.remote_addr in {"127.0.0.1", "::1"}:
        return True
    sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
    token = settings.metrics_token.get_secret_value()
    return bool(token) and compare_digest(sent.encode("utf-8", "replace"), token.encode())


@routes.add("GET", "/openapi.json", permission=Permission.PUBLIC, returns=dict[str, Any], transaction=False)
def openapi(call: RequestContext) -> Response:  # noqa: ARG001 -- every handler takes the call
    """Get this description of the API."""
    return jsonify(current_app.config["OPENAPI"])


@routes.add("GET", "/docs", permission=Permission.PUBLIC, media_type="text/html", transaction=False)
def docs(call: RequestContext) -> Response:  # noqa: ARG001 -- every handler takes the call
    """Get the description of the API as a page."""
    page = render_template("docs.html", api=current_app.config["OPENAPI"])
    return Response(page, mimetype="text/html", headers={"Content-Security-Policy": _docs_policy()})


@cache
def _docs_policy() -> str:
    """A policy that allows only the style sheet of the page, by its hash."""
    page = (Path(__file__).parent / "templates" / "docs.html").read_text()
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    hashes = " ".join(f"'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in styles)
    return f"{STRICT_POLICY}; style-src {hashes}; base-uri 'none'; form-action 'none'"
