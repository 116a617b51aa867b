"""Flask views for the declared routes."""

import inspect
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

from flask import Flask, Response, current_app, g, json, request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException, NotFound

from app.access.authenticate import Authenticator
from app.access.authorize import Actor
from app.access.permissions import OPEN
from app.access.principal import Principal
from app.context import Context
from app.http.rate_limit import WriteLimit
from app.http.route import Query, RequestContext, Route
from app.http.transfers.limits import Searches, Transfers
from app.http.validation import json_body, path_parameters, query_parameters


@dataclass(frozen=True)
class Service:
    """What the views of an application work with: `app.extensions["service"]`, looked up for each request."""

    context: Context
    authenticator: Authenticator
    limit: WriteLimit
    transfers: Transfers = field(default_factory=Transfers)
    searches: Searches = field(default_factory=Searches)

    @classmethod
    def of(cls, context: Context) -> Self:
        """The service behind `context`, which has seen no request yet."""
        return cls(context, Authenticator(context.settings), WriteLimit(context.settings))


def register(app: Flask, routes: Iterable[Route]) -> None:
    """Add a view to `app` for each route."""
    # A doubled slash makes an empty name, which no resource has; merging would redirect to another file.
    app.url_map.merge_slashes = False
    routes = list(routes)

    @app.before_request
    def refuse_doubled_slash() -> None:
        # Leading ones are merged all the same, so that a rule of a proxy for a path would miss it.
        if request.environ["PATH_INFO"].startswith("//"):
            raise NotFound

    for route in routes:
        app.add_url_rule(route.rule, _endpoint(route), _view(route), methods=[route.method])
    app.extensions.setdefault("transfers", set()).update(
        _endpoint(route) for route in routes if route.is_transfer
    )


def is_transfer(app: Flask, method: str, path: str) -> bool:
    """Whether the route of `app` that answers such a request transfers a file, or waits for the store."""
    try:
        endpoint, _ = app.url_map.bind("").match(path, method)
    except HTTPException:
        return False
    return endpoint in app.extensions["transfers"]


def _endpoint(route: Route) -> str:
    return f"{route.tag}.{route.handler.__name__}.{route.method}"


def _view(route: Route) -> Callable[..., Response]:
    parameters = set(inspect.signature(route.handler).parameters)

    def view(**path: str) -> Response:
        service: Service = current_app.extensions["service"]
        context = service.context
        # First of all: an unauthenticated caller learns nothing about the form of a request.
        actor = _actor(service.authenticator, route)
        # An id that nobody proves could be another one with each request.
        caller = (context.settings.has_login and actor.id) or actor.address
        service.limit.check(caller, "GET" if route.action == "read" else request.method)
        given = path_parameters(path, route.path)
        # What anybody may ask is also asked by programs that add something of their own.
        if route.permission not in OPEN:
            query = query_parameters(route.query or Query, ignored=route.ignored)
            if "query" in parameters:
                given["query"] = query
        if "body" in parameters and route.body:
            given["body"] = json_body(
                route.body,
                is_optional=route.body_is_optional,
                max_bytes=context.settings.max_body_bytes,
                max_depth=context.settings.max_json_depth,
            )
        if route.is_transfer:
            return service.transfers.counted(
                lambda: _response(route.handler(RequestContext(context, actor), **given), route)
            )
        if not route.transaction:
            return _response(route.handler(RequestContext(context, actor), **given), route)

        def work(session: Session) -> Response:
            # Rendered while the session is open, because rows may load columns.
            return _response(route.handler(RequestContext(context, actor, session), **given), route)

        with service.searches.counted(caller) if route.searches and _searches() else nullcontext():
            call = RequestContext(context, actor)
            response = call.read(work) if route.action == "read" else call.transact(work)
        # One that is sent as it is made occupies its thread for as long as its client takes, as a file does.
        return service.transfers.counted(lambda: response) if response.is_streamed else response

    return view


def _searches() -> bool:
    """Whether the request has more than a page of a list to be read."""
    return bool(request.args.keys() - {"page", "page_size", "sort"}) or "data" in request.args.get("sort", "")


def _actor(authenticator: Authenticator, route: Route) -> Actor:
    principal = Principal() if route.permission in OPEN else authenticator.principal(request.headers.get)
    return Actor(
        principal,
        route.permission,
        is_in_scope=route.permission in OPEN or principal.has_scope_for(route.scope, route.action),
        address=request.remote_addr or "",
        request_id=g.get("request_id", ""),
    )


def _response(result: Any, route: Route) -> Response:
    if isinstance(result, Response):
        return result
    if route.status == HTTPStatus.NO_CONTENT:
        return no_content()
    text = result.model_dump_json(by_alias=True) if isinstance(result, BaseModel) else json.dumps(result)
    # A line ends: in a terminal the next prompt would stand beside the answer.
    return Response(f"{text}\n", route.status, mimetype="application/json")


def no_content() -> Response:
    """204, without a body and its type."""
    response = Response(status=HTTPStatus.NO_CONTENT)
    del response.headers["Content-Type"]
    return response
