"""One declaration per route: permission, validation, transaction, error shape, and its OpenAPI entry."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, get_args, get_type_hints

from flask import Flask, Response, request
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json
from sqlalchemy.orm import Session

from app.access.authenticate import Principal, authenticate
from app.access.permissions import Permission
from app.context import Context
from app.db import session_scope
from app.errors import BadRequest, DomainError


class Body(BaseModel):
    """A request body; a key it does not know is refused, because it would be a silent typo."""

    model_config = ConfigDict(extra="forbid")


class Query(BaseModel):
    """The query parameters of a route; others are ignored."""


@dataclass
class Call:
    """What a handler gets beside its parameters."""

    context: Context
    actor: Principal
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
    body: type[BaseModel] | None
    body_is_optional: bool
    query: type[BaseModel] | None
    media_type: str
    upload: bool


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
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a handler `(call, *path parameters, body=…, query=…)`.

        The annotations of `body` and `query` are the models that validate and document them;
        the docstring is the summary and description that API users read.
        """

        def declare(handler: Callable[..., Any]) -> Callable[..., Any]:
            hints = get_type_hints(handler)
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
                    body=body,
                    body_is_optional=body_is_optional,
                    query=hints.get("query"),
                    media_type=media_type,
                    upload=upload,
                )
            )
            return handler

        return declare


def _without_none(hint: Any) -> tuple[Any, bool]:
    options = get_args(hint)
    return (options[0], True) if type(None) in options else (hint, False)


def register(app: Flask, context: Context, routes: Iterable[Route]) -> None:
    """Give `app` a view for each route."""
    for route in routes:
        name = f"{route.tag}.{route.handler.__name__}.{route.method}"
        app.add_url_rule(route.rule, name, _view(context, route), methods=[route.method])


def _view(context: Context, route: Route) -> Callable[..., Response]:
    wants = set(inspect.signature(route.handler).parameters)

    def view(**path: str) -> Response:
        _refuse_nul(path)
        actor = authenticate(request.headers.get)
        given: dict[str, Any] = dict(path)
        if "query" in wants and route.query:
            given["query"] = _validated(route.query, request.args.to_dict(), where="query")
        if "body" in wants and route.body:
            given["body"] = _body(route)
        if not route.transaction:
            return _response(route.handler(Call(context, actor), **given), route)
        with session_scope(context.sessions) as session:
            # Rendered inside the transaction: rows are read while it is open.
            return _response(route.handler(Call(context, actor, session), **given), route)

    return view


def _body(route: Route) -> BaseModel | None:
    if route.body_is_optional and not request.content_length and not request.get_data():
        return None
    assert route.body  # noqa: S101 -- for the type checker: only called for routes with a body
    return _validated(route.body, _json_body(), where="body")


def _refuse_nul(path: Mapping[str, str]) -> None:
    # PostgreSQL cannot hold NUL in text, so no such name exists and no such value can be compared.
    for name, value in [*path.items(), *request.args.items(multi=True)]:
        if "\0" in str(name) or "\0" in str(value):
            raise BadRequest(f"'{str(name).replace(chr(0), '')}' contains a NUL character; remove it.")


class InvalidRequest(Exception):
    """A body or query that does not fit its model; `errors` is the published 422 list."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("invalid request")
        self.errors = errors


def _validated(model: type[BaseModel], value: Any, *, where: str) -> BaseModel:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True)
        raise InvalidRequest([_published(dict(one), where) for one in found]) from None


def _published(error: dict[str, Any], where: str) -> dict[str, Any]:
    error["loc"] = [where, *error["loc"]]
    if "ctx" in error:
        error["ctx"] = {key: str(value) for key, value in error["ctx"].items()}
    if len(repr(error.get("input"))) > 1000:
        del error["input"]
    return error


def _json_body() -> Any:
    if request.mimetype != "application/json":
        raise _body_error(
            "value_error", "A JSON body is required: send it with Content-Type: application/json"
        )
    try:
        value = from_json(request.get_data(cache=False), allow_inf_nan=False)
    except ValueError as error:
        raise _body_error("json_invalid", f"JSON decode error: {error}") from None
    _refuse_unstorable(value)
    return value


def _refuse_unstorable(value: Any) -> None:
    """Refuse what is JSON but cannot be kept: NUL in text, and numbers beyond any column."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and "\0" in one:
            raise _body_error("value_error", "Text must not contain NUL characters")
        elif (isinstance(one, float) and not math.isfinite(one)) or (
            isinstance(one, int) and one.bit_length() > 1024
        ):
            raise _body_error("value_error", "A number is too large to be kept")


def _body_error(kind: str, message: str) -> InvalidRequest:
    return InvalidRequest([{"type": kind, "loc": ["body"], "msg": message}])


def _response(result: Any, route: Route) -> Response:
    if isinstance(result, Response):
        return result
    if route.status == HTTPStatus.NO_CONTENT:
        return Response(status=route.status)
    text = result.model_dump_json(by_alias=True) if isinstance(result, BaseModel) else _as_json(result)
    return Response(text, route.status, mimetype="application/json")


def _as_json(value: Any) -> str:
    from flask import current_app  # noqa: PLC0415 -- only inside a request

    return current_app.json.dumps(value)
