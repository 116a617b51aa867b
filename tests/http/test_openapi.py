"""The description of the API: valid, complete, and the one that is published."""

import json
import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.access.permissions import Permission
from app.api.application import all_routes, document

ROOT = Path(__file__).parents[2]


def test_the_document_is_valid_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(document(asks_who=True)).validate()


def test_the_published_copy_is_current() -> None:
    published = json.loads((ROOT / "docs" / "openapi.json").read_text())

    assert published == json.loads(json.dumps(document(asks_who=True))), "Run `make docs`."


def test_every_route_of_the_server_is_declared(app: Flask) -> None:
    declared = {(route.method, route.rule) for route in all_routes()}
    served = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        # The console's pages are for browsers, and no part of the API.
        if not rule.rule.startswith("/console")
    }

    assert served - declared == set(), (
        "Declare routes with Routes.add: it gives permission, validation and docs."
    )


@pytest.mark.parametrize("route", all_routes(), ids=lambda route: f"{route.method} {route.rule}")
def test_every_route_says_what_it_does_and_what_it_needs(route) -> None:
    assert (route.handler.__doc__ or "").strip(), "The docstring is the summary that API users read."
    assert isinstance(route.permission, Permission)


def test_every_permission_is_needed_by_some_route() -> None:
    assert {route.permission for route in all_routes()} == set(Permission)


def test_the_page_shows_every_operation(client: FlaskClient) -> None:
    page = client.get("/docs")

    assert page.mimetype == "text/html"
    for route in all_routes():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.rule)
        assert f"<code>{path}</code>" in page.text


def test_the_document_is_served(client: FlaskClient) -> None:
    assert client.get("/openapi.json").json["openapi"] == "3.1.0"
