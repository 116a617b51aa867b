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
from pydantic import BaseModel
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from app import metrics
from app import models as rows
from app.access.permissions import Permission
from app.cleanup import control
from app.clock import seconds_from_now
from app.config import Settings
from app.db import session_scope
from app.errors import Busy, Forbidden
from app.http.headers import STRICT_POLICY
from app.http.route import RequestContext, Routes
from app.lifecycle import DeletionState
from app.models.maintenance import Step

routes = Routes("system")

_MISSED_SWEEPS = 3
"""Missed sweeps after which maintenance counts as down, or one step of it as failing."""


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """The process can serve."""

    status: Literal["ready"] = "ready"


class NotReady(BaseModel):
    """A service that does not answer."""

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


@routes.add("GET", "/health/live", permission=Permission.PUBLIC, returns=Live, transaction=False)
def live(call: RequestContext) -> Live:  # noqa: ARG001 -- every handler takes the call
    """Check that the process answers."""
    return Live()


@routes.add(
    "GET", "/health/ready", permission=Permission.PUBLIC, returns=Ready, raises=(Busy,), transaction=False
)
def ready(call: RequestContext) -> Ready | Response:
    """Check that requests can be served: the database answers."""
    if _database_error(call) is None:
        return Ready()
    response = jsonify(detail={"status": "not_ready"})
    response.status_code = Busy.status
    return response


@routes.add("GET", "/status", permission=Permission.PUBLIC, returns=Status, transaction=False)
def status(call: RequestContext) -> Status:
    """Get the state of the whole product, including background work.

    It is `degraded` while destruction is paused, deletions are held, one is FAILED, or a step of the sweep fails.
    """
    error = _database_error(call)
    if error:
        down = Services(ready=["api"], not_ready=[NotReady(name="database", message=error)])
        return Status(status="unhealthy", services=down, controllers=Controllers(healthy=False, status={}))
    checks = _check_controllers(call)
    is_healthy = all(checks.values())
    return Status(
        status="healthy" if is_healthy else "degraded",
        services=Services(ready=["api", "database"], not_ready=[]),
        controllers=Controllers(healthy=is_healthy, status=checks),
    )


def _database_error(call: RequestContext) -> str | None:
    try:
        with session_scope(call.context.sessions) as session:
            session.execute(text("SELECT 1 FROM workspaces LIMIT 1"))
    except SQLAlchemyError as error:
        return f"does not answer ({type(error).__name__})"
    return None


def _check_controllers(call: RequestContext) -> dict[str, bool]:
    with session_scope(call.context.sessions) as session:
        switch = control.state(session)
        failed = session.scalar(select(func.count()).where(rows.Deletion.state == DeletionState.FAILED))
        limit = seconds_from_now(-call.context.settings.sweep_seconds * _MISSED_SWEEPS)
        swept = session.scalar(select(func.count()).where(rows.CleanupControl.last_sweep_at > limit))
        steps = select(rows.MaintenanceStep.name).where(rows.MaintenanceStep.last_success_at > limit)
        succeeded = set(session.scalars(steps))
        return {
            "workspace_cleanup_sweep": bool(swept),
            "workspace_cleanup_not_paused": not switch.paused,
            "workspace_cleanup_none_held": not control.held(session),
            "workspace_cleanup_none_failed": failed == 0,
            **{f"workspace_maintenance_{step}": step in succeeded for step in Step},
        }


@routes.add(
    "GET",
    "/metrics",
    permission=Permission.METRICS_READ,
    raises=(Forbidden,),
    media_type="text/plain",
)
def read_metrics(call: RequestContext) -> Response:
    """Get the metrics in Prometheus' text format, from this host or with the metrics token."""
    if not _may_read_metrics(call.context.settings):
        raise Forbidden(
            "Metrics can be read from this host, or with WORKSPACES_METRICS_TOKEN as the bearer token."
        )
    return Response(metrics.exposition(call.session), content_type=CONTENT_TYPE_LATEST)


def _may_read_metrics(settings: Settings) -> bool:
    if request.remote_addr in {"127.0.0.1", "::1"}:
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
