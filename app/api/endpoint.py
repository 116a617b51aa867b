"""One declaration per route: permission, validation, transaction, error shape, and its OpenAPI entry."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, get_args, get_type_hints

from flask import Flask, Response, g, json, request
from pydantic import BaseModel, ConfigDict, TypeAdapter
from sqlalchemy.orm import Session

from app.access.authenticate import Authenticator
from app.access.authorize import Actor, require_platform_wide
from app.access.permissions import OPEN, WITHOUT_WORKSPACE, Permission
from app.access.principal import Principal
from app.api.rate_limit import WriteLimit
from app.api.transfers import Transfers
from app.api.validation import json_body, path_parameters, query_parameters
from app.context import Context
from app.db import session_scope
from app.errors import DomainError

_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


class Body(BaseModel):
    """A request body; a key it does not know is refused, because it would be a silent typo."""

    model_config = ConfigDict(extra="forbid")


class Query(BaseModel):
    """The query parameters of a route; others are ignored."""


@dataclass
class Call:
    """What a handler gets beside its parameters."""

    context: Context
    actor: Actor
    _session: Session | None = None

    @property
    def session(self) -> Session:
        """The request's transaction. A route declared with `transaction=False` opens its own."""
        if self._session is None:
            raise RuntimeError("this route was declared without a transaction")
        return self._session


@dataclass(frozen=True)
class Route:
    """A registered route, as the app and the OpenAPI document need it."""

    method: str
    rule: str
    handler: Callable[..., Any]
    permission: Permission
    status: int
    returns: Any
    raises: tuple[type[DomainError], ...]
    tag: str
    transaction: bool
    path: dict[str, TypeAdapter[Any]]
    body: type[BaseModel] | None
    body_is_optional: bool
    query: type[BaseModel] | None
    media_type: str
    upload: bool
    streams: bool

    @property
    def area(self) -> str:
        """The part of the product it belongs to, as scopes name it."""
        return self.rule.removeprefix("/apis/").partition("/")[0]

    @property
    def is_transfer(self) -> bool:
        """Whether it takes as long as the client needs to send or receive it."""
        return self.upload or self.streams or self.media_type == "application/octet-stream"

    @property
    def action(self) -> str:
        """What it does, as scopes name it."""
        return "read" if self.method == "GET" else "write"


@dataclass
class Routes:
    """The routes of one resource, in the order of its file."""

    tag: str
    routes: list[Route] = field(default_factory=list)

    def __iter__(self) -> Iterator[Route]:
        return iter(self.routes)

    def add(
        self,
        method: str,
        rule: str,
        *,
        permission: Permission,
        status: int = 200,
        returns: Any = None,
        raises: tuple[type[DomainError], ...] = (),
        transaction: bool = True,
        media_type: str = "application/json",
        upload: bool = False,
        streams: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a handler `(call, *path parameters, body=…, query=…)`.

        The annotations of `body`, `query` and path parameters validate and document them;
        the docstring is the summary and description that API users read. A handler that `streams` answers with as much
        as there is, so that it may take as long as a file.
        """

        def declare(handler: Callable[..., Any]) -> Callable[..., Any]:
            hints = get_type_hints(handler, include_extras=True)
            body, body_is_optional = _without_none(hints.get("body"))
            self.routes.append(
                Route(
                    method=method,
                    rule=rule,
                    handler=handler,
                    permission=permission,
                    status=status,
                    returns=returns,
                    raises=raises,
                    tag=self.tag,
                    transaction=transaction,
                    path={name: TypeAdapter(hints[name]) for name in _PARAMETER.findall(rule)},
                    body=body,
                    body_is_optional=body_is_optional,
                    query=hints.get("query"),
                    media_type=media_type,
                    upload=upload,
                    streams=streams,
                )
            )
            return handler

        return declare


def _without_none(hint: Any) -> tuple[Any, bool]:
    options = get_args(hint)
    return (options[0], True) if type(None) in options else (hint, False)


def register(app: Flask, context: Context, authenticator: Authenticator, routes: Iterable[Route]) -> None:
    """Give `app` a view for each route."""
    # A doubled slash makes an empty name, which nothing has; merging would redirect to another file's path.
    app.url_map.merge_slashes = False
    limit = WriteLimit(context.settings)
    transfers = app.extensions["transfers"] = Transfers()
    for route in routes:
        name = f"{route.tag}.{route.handler.__name__}.{route.method}"
        app.add_url_rule(
            route.rule, name, _view(context, authenticator, limit, transfers, route), methods=[route.method]
        )


def _view(
    context: Context, authenticator: Authenticator, limit: WriteLimit, transfers: Transfers, route: Route
) -> Callable[..., Response]:
    wants = set(inspect.signature(route.handler).parameters)

    def view(**path: str) -> Response:
        # Before anything else is looked at: a stranger learns nothing about what a request should look like.
        actor = _actor(authenticator, route)
        limit.check(actor.id or actor.address, request.method)
        given = path_parameters(path, route.path)
        if "query" in wants and route.query:
            given["query"] = query_parameters(route.query)
        if "body" in wants and route.body:
            given["body"] = json_body(
                route.body,
                is_optional=route.body_is_optional,
                max_bytes=context.settings.max_body_bytes,
                max_depth=context.settings.max_json_depth,
            )
        if route.is_transfer:
            return transfers.counted(lambda: _response(route.handler(Call(context, actor), **given), route))
        if not route.transaction:
            return _response(route.handler(Call(context, actor), **given), route)
        with session_scope(context.sessions) as session:
            if route.permission in WITHOUT_WORKSPACE:
                require_platform_wide(session, actor)
            # Rendered inside the transaction: rows are read while it is open.
            return _response(route.handler(Call(context, actor, session), **given), route)

    return view


def _actor(authenticator: Authenticator, route: Route) -> Actor:
    principal = Principal() if route.permission in OPEN else authenticator.principal(request.headers.get)
    return Actor(
        principal,
        route.permission,
        is_in_scope=route.permission in OPEN or principal.has_scope_for(route.area, route.action),
        address=request.remote_addr or "",
        request_id=g.get("request_id", ""),
    )


def _response(result: Any, route: Route) -> Response:
    if isinstance(result, Response):
        return result
    if route.status == HTTPStatus.NO_CONTENT:
        return no_content()
    text = result.model_dump_json(by_alias=True) if isinstance(result, BaseModel) else json.dumps(result)
    return Response(text, route.status, mimetype="application/json")


def no_content() -> Response:
    """204: no body, and so no type of it either."""
    response = Response(status=HTTPStatus.NO_CONTENT)
    del response.headers["Content-Type"]
    return response
