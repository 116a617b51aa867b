"""The pages of the console, assembled."""

from collections.abc import Iterator
from importlib import import_module

from flask import Flask

from app.console import rendering, sign_in, views
from app.console.page import Page

MODULES = (
    "overview",
    "failed",
    "deletions",
    "deletion",
    "failures",
    "workspaces",
    "audit_log",
    "hosts",
    "webhooks",
)
"""Modules of `pages` that declare `pages`, in the order of the menu."""


def register(app: Flask) -> None:
    """Add every page to `app`, the files that they use, and the way in and out."""
    views.register(app, all_pages())
    rendering.register(app)
    sign_in.register(app)


def all_pages() -> Iterator[Page]:
    """Every page and action."""
    for name in MODULES:
        yield from import_module(f"app.console.pages.{name}").pages
