"""One declaration for each page and action of the console: permission, form, and how it answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, get_type_hints
from uuid import UUID

from flask import Response, request
from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, model_validator
from sqlalchemy import ColumnElement, SQLColumnExpression, true, tuple_

from app.access.permissions import Permission
from app.console import cookies
from app.console.rendering import html, render
from app.console.visitor import Visitor
from app.http.route import RequestContext

HOME = "/console"


class Fields(BaseModel):
    """The fields of a form, or the parameters of a page's address that it knows. An empty one is not given."""

    model_config = ConfigDict(extra="forbid")

    keeps_empty: ClassVar[frozenset[str]] = frozenset()
    """Fields for which empty is a value like others."""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        return (
            {name: value for name, value in data.items() if value != "" or name in cls.keeps_empty}
            if isinstance(data, dict)
            else data
        )


class Before(Fields):
    """The row of a list, newest first, behind which its page begins."""

    before: AwareDatetime | None = None
    before_id: UUID | None = None

    def behind(self, time: SQLColumnExpression[Any], key: SQLColumnExpression[Any]) -> ColumnElement[bool]:
        """A condition: a row comes after that one; every row does, if there is none."""
        if self.before is None or self.before_id is None:
            return true()
        return tuple_(time, key) < tuple_(self.before, self.before_id)


@dataclass
class PageRequest(RequestContext):
    """A request of a browser: the context and the actor, as a route of the API has them, and who sits there."""

    visitor: Visitor = field(kw_only=True)

    def page(self, template: str, **values: Any) -> Response:
        """A whole page."""
        message = cookies.message(self.context)
        response = self.part(template, message=message, status=values.pop("status", 200), **values)
        if message:
            cookies.forget_message(response)
        return response

    def part(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page, or the part of one that is looked at again and again."""
        settings = self.context.settings
        text = render(template, visitor=self.visitor, settings=settings, path=request.path, **values)
        return html(text, status)

    def live(self, template: str, **values: Any) -> Response:
        """A part that a page asks for again: the browser keeps it, and asks each time whether it still holds.

        Without a script it is a page of its own.
        """
        if not request.headers.get("HX-Request"):
            return self.page("alone.html", part=template, **values)
        response = self.part(template, **values)
        response.headers["Cache-Control"] = "private, no-cache"
        response.headers["Vary"] = "HX-Request"
        response.add_etag()
        response.make_conditional(request)
        return response

    def went(self, text: str, to: str, *, kind: cookies.Kind = "done") -> Response:
        """What an action answers: the page `to`, with a line that says what was done, or why it was refused."""
        response = redirect_to(to)
        cookies.say(response, self.context, text, kind=kind)
        return response


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page, or an action of one."""

    method: str
    rule: str
    permission: Permission
    area: str
    """The area of the API whose scopes a caller needs."""
    handler: Callable[..., Response]
    back: str
    """Of an action: the address of the page that shows its outcome, with the parameters of `rule`."""
    waits_for_store: bool
    path: dict[str, TypeAdapter[Any]]

    ACTIONS: ClassVar[frozenset[str]] = frozenset({"POST"})

    @property
    def is_action(self) -> bool:
        """Whether it changes anything."""
        return self.method in self.ACTIONS


@dataclass
class Pages:
    """The pages of one module, in the order of its file."""

    pages: list[Page] = field(default_factory=list)

    def __iter__(self) -> Iterator[Page]:
        return iter(self.pages)

    def add(
        self,
        method: str,
        rule: str,
        *,
        permission: Permission,
        area: str = "entities",
        back: str = HOME,
        waits_for_store: bool = False,
    ) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
        """Declare a handler `(call, *path parameters, query=…, form=…)`, whose annotations validate both."""

        def declare(handler: Callable[..., Response]) -> Callable[..., Response]:
            hints = get_type_hints(handler, include_extras=True)
            names = [part[1:-1] for part in rule.split("/") if part.startswith("<")]
            self.pages.append(
                Page(
                    method=method,
                    rule=f"{HOME}{rule}",
                    permission=permission,
                    area=area,
                    handler=handler,
                    back=back,
                    waits_for_store=waits_for_store,
                    path={name: TypeAdapter(hints[name]) for name in names},
                )
            )
            return handler

        return declare


def redirect_to(address: str) -> Response:
    """Have the browser load the page of that address."""
    return Response(status=HTTPStatus.SEE_OTHER, headers={"Location": address})
