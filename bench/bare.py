"""The web application of the bench: the product's, with one route that has no work to do."""

from flask import Flask
from pydantic import BaseModel

import app
from app.access.permissions import Permission
from app.http.route import RequestContext, Routes
from app.http.views import register

routes = Routes("bench")
PATH = "/apis/bench/bare"


class Bare(BaseModel):
    """An answer without content."""

    status: str = "bare"


@routes.add("GET", PATH, permission=Permission.PROFILES_READ, returns=Bare, transaction=False)
def bare(call: RequestContext) -> Bare:  # noqa: ARG001 -- every handler takes the call
    """Answer at once: through the server, its threads and authentication, without the database."""
    return Bare()


def create_app() -> Flask:
    """The WSGI application of the product, with the bare route."""
    flask = app.create_app()
    register(flask, routes)
    return flask
