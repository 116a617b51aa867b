"""The workspace control plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.context import Context


def create_app(context: Context | None = None) -> Flask:
    """The WSGI application.

    Without a `context` it is configured from the environment, as in a server.
    """
    # Here, because every import of a module of `app` would load the web framework and the database otherwise.
    from app.api import application as api  # noqa: PLC0415
    from app.config import load_settings  # noqa: PLC0415
    from app.context import Context  # noqa: PLC0415
    from app.store_identity import report_store  # noqa: PLC0415
    from app.tracing import start_tracing  # noqa: PLC0415

    if context is None:
        context = Context.open(load_settings())
        start_tracing(context.settings)
        report_store(context.store)
    return api.build(context)
