"""One declaration per route: permission, validation, transaction, errors and OpenAPI entry."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypedDict, TypeVar, Unpack, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, model_validator
from sqlalchemy.orm import Session

from app.access.authorize import Actor, require_platform_wide
from app.access.permissions import WITHOUT_WORKSPACE, Permission
from app.context import Context
from app.db import read, transact
from app.errors import DomainError

T = TypeVar("T")

_PATH_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


class Body(BaseModel):
    """A request body, or a part of one.

    An unknown key with a value is refused: it may be a typo, and what it asks for would not be done. One that is null
    asks for nothing: a newer client sends it for a field that this release does not know.
    """

    model_config = ConfigDict(extra="forbid")

    may_be_repeated: ClassVar[bool] = True
    """Whether an error may repeat what was sent; not where that may be a secret."""

    @model_validator(mode="before")
    @classmethod
    def _ignore_unknown_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict) or None not in data.values():
            return data
        known = {key for name, field in cls.model_fields.items() for key in (name, field.alias)}
        return {key: value for key, value in data.items() if value is not None or key in known}


class Query(BaseModel):
    """The query parameters of a route. Unknown ones are refused: a typo in a filter would answer with everything."""

    model_config = ConfigDict(extra="forbid")


@dataclass
class RequestContext:
    """The context, the actor and the transaction of a request, passed to its handler."""

    context: Context
    actor: Actor
    _session: Session | None = None

    @property
    def session(self) -> Session:
        """The request's transaction; of a GET, one that only reads. A route with `transaction=False` opens its own."""
        if self._session is None:
            raise RuntimeError("this route was declared without a transaction")
        return self._session

    def transact(self, work: Callable[[Session], T]) -> T:
        """What `work` returns, in a committed transaction of the actor. Raises Forbidden and what `work` raises.

        `work` may be called twice, so it must have no effects outside the transaction.
        """
        return transact(self.context.sessions, self._permitted(work))

    def read(self, work: Callable[[Session], T]) -> T:
        """What `work` returns of statements of the actor that only read. Raises Forbidden and what `work` raises.

        `work` may be called twice. Each statement has the condition of access, or the id that one with it has found.
        """
        return read(self.context.sessions, self._permitted(work))

    def _permitted(self, work: Callable[[Session], T]) -> Callable[[Session], T]:
        def permitted(session: Session) -> T:
            if self.actor.permission in WITHOUT_WORKSPACE:
                require_platform_wide(session, self.actor)
            return work(session)

        return permitted


Handler = Callable[..., Any]


class RouteOptions(TypedDict, total=False):
    """The optional arguments of a declaration; `Route` has their defaults."""

    status: int
    returns: Any
    raises: tuple[type[DomainError], ...]
    transaction: bool
    media_type: str
    upload: bool
    streams: bool
    waits_for_store: bool
    searches: bool
    reads: bool
    receives: tuple[str, ...]
    ignored: tuple[str, ...]


class Parameters(TypedDict):
    """The parameters of a handler, as its annotations declare them."""

    path: dict[str, TypeAdapter[Any]]
    body: type[BaseModel] | None
    body_is_optional: bool
    query: type[BaseModel] | None


@dataclass(frozen=True, kw_only=True)
class Route:
    """A registered route, as the app and the OpenAPI document need it."""

    method: str
    rule: str
    handler: Handler
    permission: Permission
    tag: str
    path: dict[str, TypeAdapter[Any]]
    body: type[BaseModel] | None
    body_is_optional: bool
    query: type[BaseModel] | None
    status: int = 200
    returns: Any = None
    raises: tuple[type[DomainError], ...] = ()
    transaction: bool = True
    media_type: str = "application/json"
    upload: bool = False
    streams: bool = False
    """Whether the answer is sent as it is made, so that it may take as long as a file."""
    waits_for_store: bool = False
    """Whether it calls the store, which may answer late, without transferring a file."""
    searches: bool = False
    """Whether its filters can search in documents."""
    reads: bool = False
    """Whether it only reads, although it is no GET."""
    receives: tuple[str, ...] = ()
    """The types of a body that its handler reads by itself, up to `max_body_bytes`."""
    ignored: tuple[str, ...] = ()
    """Query parameters that clients send and that change nothing."""

    @property
    def area(self) -> str:
        """The area of the API."""
        return self.rule.removeprefix("/apis/").partition("/")[0]

    @property
    def scope(self) -> str:
        """Its area, as scopes name it."""
        return self.area.removesuffix("-gateway")

    @property
    def is_transfer(self) -> bool:
        """Whether it takes as long as the client needs for a file, or the store for its answer."""
        is_download = self.streams or self.media_type == "application/octet-stream"
        return self.upload or is_download or self.waits_for_store

    @property
    def action(self) -> str:
        """`read` or `write`, as scopes name it."""
        return "read" if self.method == "GET" or self.reads else "write"


@dataclass
class Routes:
    """The routes of one resource, in the order of its file."""

    tag: str
    routes: list[Route] = field(default_factory=list)

    def __iter__(self) -> Iterator[Route]:
        return iter(self.routes)

    def add(
        self, method: str, rule: str, *, permission: Permission, **options: Unpack[RouteOptions]
    ) -> Callable[[Handler], Handler]:
        """Declare a handler `(call, *path parameters, body=…, query=…)`.

        The annotations of `body`, `query` and path parameters validate and document them; the docstring is the
        summary and description for API users.
        """

        def declare(handler: Handler) -> Handler:
            parameters = _parameters(handler, rule)
            self.routes.append(
                Route(
                    method=method,
                    rule=rule,
                    handler=handler,
                    permission=permission,
                    tag=self.tag,
                    **parameters,
                    **options,
                )
            )
            return handler

        return declare


def _parameters(handler: Handler, rule: str) -> Parameters:
    hints = get_type_hints(handler, include_extras=True)
    body, body_is_optional = _without_none(hints.get("body"))
    return {
        "path": {name: TypeAdapter(hints[name]) for name in _PATH_PARAMETER.findall(rule)},
        "body": body,
        "body_is_optional": body_is_optional,
        "query": hints.get("query"),
    }


def _without_none(hint: Any) -> tuple[Any, bool]:
    options = get_args(hint)
    return (options[0], True) if type(None) in options else (hint, False)
