"""The workspace control plane."""

from flask import Flask

from app.config import load_settings
from app.context import Context


def create_app(context: Context | None = None) -> Flask:
    """The WSGI application.

    Without a `context` it is configured from the environment, as in a server.
    """
    from app.api import application as api  # noqa: PLC0415 -- workers import `app` without loading the API

    return api.build(context or Context.open(load_settings()))
