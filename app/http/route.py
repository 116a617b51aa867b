"""One declaration per route: permission, validation, transaction, error shape, and its OpenAPI entry."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter
from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.access.permissions import Permission
from app.context import Context
from app.errors import DomainError

_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


class Body(BaseModel):
    """A request body; a key it does not know is refused, because it would be a silent typo."""

    model_config = ConfigDict(extra="forbid")


class Query(BaseModel):
    """The query parameters of a route; others are ignored."""


@dataclass
class RequestContext:
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
