"""The Flask application, assembled from the routes of every resource."""

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import PathConverter

from app.console import application as console
from app.context import Context
from app.http.browsers import refuse_foreign_requests
from app.http.error_handlers import register_failures
from app.http.headers import add_headers
from app.http.measuring import MeasuredFlask
from app.http.openapi import build_document
from app.http.route import Route
from app.http.views import Service, register
from app.logs import configure_logs

TEMPLATES = Path(__file__).parent / "templates"
RESOURCES = (
    "entities.workspaces",
    "entities.members",
    "auth.role_bindings",
    "entities.projects",
    "entities.entities",
    "system",
    "auth.discovery",
    "auth.authenticate",
    "auth.access_keys",
    "entities.workspace_deletion",
    "entities.failed_deletions",
    "entities.deletions",
    "entities.deletion_records",
    "entities.deletion_events",
    "entities.cleanup_control",
    "entities.webhooks",
    "files.filesets",
    "files.files",
    "files.otlp_logs",
    "jobs.jobs",
    "jobs.steps",
    "jobs.tasks",
    "jobs.logs",
    "jobs.results",
    "jobs.hosts",
    "models.deployments",
    "models.deployment_configs",
    "inference_gateway.providers",
    "secrets.secrets",
    "auth.audit_log",
)
"""Modules of this package that declare `routes`, in the order of the documentation."""


class _AnyPath(PathConverter):
    """Also matches an empty path and one that begins with a slash, so that the route can refuse it clearly."""

    regex = "(?s:.*?)"  # A line break too.
    part_isolating = False


def build(context: Context) -> Flask:
    """Build an application that serves every resource."""
    configure_logs(context.settings)
    app = assemble(trusted_proxies=context.settings.trusted_proxies)
    serve(app, context)
    return app


def assemble(*, trusted_proxies: int = 0) -> Flask:
    """An application without a context: it answers requests once `serve` has given it one."""
    app = MeasuredFlask("workspaces", static_folder=None, template_folder=str(TEMPLATES))
    app.url_map.converters["path"] = _AnyPath
    register_failures(app)
    add_headers(app)
    refuse_foreign_requests(app)
    if trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=trusted_proxies, x_proto=trusted_proxies)  # type: ignore[method-assign]  # Flask's way
    register(app, all_routes())
    console.register(app)
    return app


def serve(app: Flask, context: Context) -> None:
    """Let `app` answer out of `context`, as if it had never answered before."""
    app.config["OPENAPI"] = document(asks_who=context.settings.auth_enabled)
    app.extensions["service"] = Service.of(context)


def all_routes() -> list[Route]:
    """Every route of the product."""
    return [route for name in RESOURCES for route in importlib.import_module(f"app.api.{name}").routes]


@cache
def document(*, asks_who: bool) -> dict[str, Any]:
    """The OpenAPI document of every route; `asks_who` is False for a server without authentication.

    Cached, because building it takes longer than the rest of an application; callers must not change it.
    """
    return build_document(all_routes(), asks_who=asks_who)
