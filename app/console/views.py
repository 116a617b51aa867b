"""Flask views for the declared pages: who sits there, what the form says, and what becomes of an error."""

import inspect
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, get_type_hints
from urllib.parse import quote, urlsplit

from flask import Flask, Response, current_app, g, request
from pydantic import BaseModel, ValidationError

from app.access.authorize import Actor
from app.console import visitor
from app.console.forms import sent_form
from app.console.page import HOME, Page, PageRequest, redirect_to
from app.console.rendering import html, render
from app.console.visitor import NotSignedIn, Visitor
from app.errors import DomainError
from app.http.validation import InvalidRequest, path_parameters
from app.http.views import Service


def register(app: Flask, pages: Iterator[Page]) -> None:
    """Add a view to `app` for each page."""
    for page in pages:
        endpoint = f"console.{page.handler.__name__}"
        app.add_url_rule(page.rule, endpoint, _view(page), methods=[page.method])
        if page.waits_for_store:
            app.extensions.setdefault("transfers", set()).add(endpoint)


def _view(page: Page) -> Callable[..., Response]:
    hints = get_type_hints(page.handler)
    declared = {
        name: hints[name] for name in ("query", "form") if name in inspect.signature(page.handler).parameters
    }

    def view(**path: str) -> Response:
        service: Service = current_app.extensions["service"]
        try:
            sitting = visitor.current(service)
        except NotSignedIn:
            return _to_sign_in()
        except DomainError as error:
            return _failed(service, error, None)
        call = PageRequest(service.context, _actor(sitting, page), visitor=sitting)
        try:
            response = _answer(service, call, page, declared, path)
        except Exception as error:  # noqa: BLE001 -- whatever it is, a browser gets a page
            response = _failed(service, error, call, _back(page, path) if page.is_action else None)
        visitor.complete(response, sitting, service.context)
        return response

    return view


def _answer(
    service: Service, call: PageRequest, page: Page, declared: dict[str, Any], path: dict[str, str]
) -> Response:
    # As a route of the API does: an id that nobody proves could be another one with each request.
    caller = (call.context.settings.has_login and call.actor.id) or call.actor.address
    service.limit.check(caller, page.method)
    given = path_parameters(path, page.path)
    form = sent_form() if page.is_action else {}
    if page.is_action:
        visitor.require_token(call.visitor, form.pop("token", ""))
    if "form" in declared:
        given["form"] = _validated(declared["form"], form)
    if "query" in declared:
        asked = request.args.to_dict()
        # Links get parameters of others on their way; a form has only what a page of ours has put there.
        known = {name: asked[name] for name in declared["query"].model_fields if name in asked}
        given["query"] = _validated(declared["query"], known)
    if page.waits_for_store:
        return service.transfers.counted(lambda: page.handler(call, **given))
    return page.handler(call, **given)


def _validated(model: type[BaseModel], given: dict[str, str]) -> BaseModel:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidRequest([dict(one) for one in found]) from None


def _actor(sitting: Visitor, page: Page) -> Actor:
    action = "write" if page.is_action else "read"
    return Actor(
        sitting.principal,
        page.permission,
        is_in_scope=sitting.principal.has_scope_for(page.area, action),
        address=request.remote_addr or "",
        request_id=g.get("request_id", ""),
    )


def _to_sign_in() -> Response:
    is_part = bool(request.headers.get("HX-Request"))
    if is_part:
        asked = _path_of(request.headers.get("HX-Current-URL", ""))
    else:
        asked = request.full_path.rstrip("?") if request.method == "GET" else HOME
    sign_in = f"{HOME}/sign-in?next={quote(asked)}"
    if is_part:
        # A part of a page cannot become the page of sign-in.
        return Response(status=HTTPStatus.NO_CONTENT, headers={"HX-Redirect": sign_in})
    return redirect_to(sign_in)


def _path_of(url: str) -> str:
    """The path and the query of the page that asks; whether the sign-in may lead there is looked at by itself."""
    try:
        return urlsplit(url)._replace(scheme="", netloc="", fragment="").geturl()
    except ValueError:
        return HOME


def _back(page: Page, path: dict[str, str]) -> str:
    return page.back.format(**{name: quote(value, safe="") for name, value in path.items()})


def _failed(
    service: Service, error: Exception, call: PageRequest | None, back: str | None = None
) -> Response:
    """What the API would answer, as a page: of an action, as a line on the page that it was begun from."""
    answer = current_app.make_response(current_app.handle_user_exception(error))
    text = _in_words((answer.get_json(silent=True) or {}).get("detail", ""))
    if call and back and answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return call.went(text, back, kind="refused")
    sitting = call.visitor if call else None
    page = render(
        "error.html", visitor=sitting, settings=service.context.settings, path="", text=text, message=None
    )
    response = html(page, answer.status_code)
    if retry := answer.headers.get("Retry-After"):
        response.headers["Retry-After"] = retry
    return response


def _in_words(detail: Any) -> str:
    """The detail of an answer of the API: a text, or a list of what does not fit."""
    if not isinstance(detail, list):
        return str(detail)
    return "; ".join(f"{'.'.join(map(str, one.get('loc', ())))}: {one.get('msg', '')}" for one in detail)
