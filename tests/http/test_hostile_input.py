"""Whatever a client sends, on any route: a clear refusal, never a 500, nothing of the server's inside."""

import io
import json
import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from pydantic import ValidationError
from sqlalchemy import Engine, update
from werkzeug.test import TestResponse

from app.api.application import all_routes, build
from app.config import Settings
from app.db import session_scope
from app.http.route import Body
from app.lifecycle import WorkspaceState
from app.models import Workspace
from tests import factories
from tests.support.application import Engines
from tests.support.database import restore
from tests.support.publisher import recording

ROUTES = all_routes()
WITH_BODY = [route for route in ROUTES if route.body]
BELOW_A_WORKSPACE = [route for route in ROUTES if "<workspace>" in route.rule or "<name>" in route.rule]
JSON = {"Content-Type": "application/json"}


def address(route, **values: str) -> str:
    """The route's path with `values`, and something harmless for the other parameters."""
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda match: values.get(match[1], "ml-team"), route.rule)


def is_clear(response: TestResponse) -> bool:
    """The published error shape, and nothing that only the server should know."""
    assert response.status_code < 500, response.text
    if response.status_code >= 400 and response.request.method != "HEAD":
        detail = response.json["detail"]
        if isinstance(detail, list):
            assert all({"type", "loc", "msg"} <= set(one) for one in detail)
            assert all(one["loc"][0] in {"body", "query", "path"} for one in detail)
        for secret in ("Traceback", "SELECT ", "INSERT ", "psycopg", ".py"):
            assert secret not in response.text
    return True


def named(route) -> str:
    return f"{route.method} {route.rule}"


@pytest.fixture(scope="module")
def standing(
    engine: Engine, _settings: Settings, engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlaskClient]:
    """A client of a product with one workspace, the same for all: what is refused leaves nothing behind."""
    restore(engine)
    settings = _settings.model_copy(update={"data_dir": tmp_path_factory.mktemp("standing")})
    with recording() as publisher:
        context = engines.context_of(settings, publisher)
        with session_scope(context.sessions) as session:
            factories.make_workspace(session)
        yield build(context).test_client()


BODIES = {
    "empty": b"",
    "malformed": b"{",
    "a list": b"[]",
    "a string": b'"{}"',
    "a number": b"1",
    "null": b"null",
    "not utf-8": b'{"name": "\xff"}',
    "a lone surrogate": b'{"name": "\\ud800"}',
    "NUL": b'{"name": "a\\u0000b", "principal": "a\\u0000b"}',
    "not a number": b'{"data": {"x": NaN}}',
    "infinite": b'{"data": {"x": 1e400}}',
    "a huge integer": b'{"data": {"x": 1' + b"0" * 5000 + b"}}",
    "deep": b'{"data": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "an unknown key": b'{"certainly_unknown": 1}',
}


def all_bodies(kind: type[Body] = Body) -> Iterator[type[Body]]:
    for one in kind.__subclasses__():
        yield one
        yield from all_bodies(one)


@pytest.mark.parametrize("body", list(all_bodies()), ids=lambda body: body.__name__)
def test_an_unknown_key_is_refused_with_a_value_and_ignored_without(body: type[Body]) -> None:
    def is_refused(value: object) -> bool:
        try:
            body.model_validate_json(json.dumps({"certainly_unknown": value}))
        except ValidationError as error:
            return "extra_forbidden" in {each["type"] for each in error.errors()}
        return False

    assert is_refused(1)
    assert is_refused({})
    assert not is_refused(None)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("route", WITH_BODY, ids=named)
def test_a_body_that_makes_no_sense_is_refused(standing: FlaskClient, route, body: bytes) -> None:
    response = standing.open(address(route), method=route.method, data=body, headers=JSON)

    assert is_clear(response)
    takes_any_key = route.body.model_config.get("extra") != "forbid" and body.startswith(b'{"certainly')
    if (body or not route.body_is_optional) and not takes_any_key:
        assert response.status_code == 422


@pytest.mark.parametrize(
    "value", ["%00", "a%00b", "%ff", "..", "%2F", "%2e%2e%2f", "x" * 3000, "%F0%9F%8D%B2", "'--"]
)
@pytest.mark.parametrize("route", [route for route in ROUTES if "<" in route.rule], ids=named)
def test_a_strange_address_is_refused_or_leads_nowhere(standing: FlaskClient, route, value: str) -> None:
    parameters = re.findall(r"<(?:\w+:)?(\w+)>", route.rule)

    response = standing.open(
        address(route, **dict.fromkeys(parameters, value)), method=route.method, headers=JSON, data=b"{}"
    )

    assert is_clear(response)


@pytest.mark.parametrize(
    "query", ["page=0", "page=99999999999999999999", "page_size=x", "sort=%00", "filter=%00", "filter={"]
)
@pytest.mark.parametrize("route", [route for route in ROUTES if route.query], ids=named)
def test_a_strange_query_is_refused(standing: FlaskClient, route, query: str) -> None:
    assert is_clear(standing.open(f"{address(route)}?{query}", method=route.method, headers=JSON, data=b"{}"))


@pytest.mark.parametrize("route", WITH_BODY, ids=named)
def test_a_body_that_breaks_off_is_not_taken_for_a_whole_one(client: FlaskClient, session, route) -> None:
    """gunicorn ends the stream without an error. Where a body is optional, none was taken for what was asked."""
    factories.make_workspace(session)
    session.commit()

    response = client.open(
        address(route),
        method=route.method,
        input_stream=io.BytesIO(b""),
        headers=JSON,
        environ_overrides={"CONTENT_LENGTH": "99", "wsgi.input_terminated": True},
    )

    assert (response.status_code, response.json) == (400, {"detail": "The body broke off."})


@pytest.mark.parametrize("route", WITH_BODY, ids=named)
def test_a_body_must_say_that_it_is_json_and_must_not_be_endless(client: FlaskClient, context, route) -> None:
    plain = client.open(
        address(route), method=route.method, data=b"{}", headers={"Content-Type": "text/plain"}
    )
    endless = client.open(
        address(route), method=route.method, data=b" " * (context.settings.max_body_bytes + 1), headers=JSON
    )

    assert is_clear(plain)
    assert is_clear(endless)
    assert plain.status_code == 422
    assert endless.status_code == 413
    assert str(context.settings.max_body_bytes) in endless.json["detail"]


@pytest.mark.parametrize("route", BELOW_A_WORKSPACE, ids=named)
def test_nothing_of_a_workspace_can_be_reached_while_it_is_being_deleted(
    client: FlaskClient, session, route
) -> None:
    if "/iam/" in route.rule:
        pytest.skip(
            "a role binding is addressed by its own name; tests/api/auth/test_role_bindings.py covers it"
        )
    factories.make_workspace(session)
    session.execute(
        update(Workspace).where(Workspace.name == "ml-team").values(state=WorkspaceState.DELETING)
    )
    session.commit()

    response = client.open(
        address(route, version="1"), method=route.method, headers=JSON, json=valid_body(route)
    )

    assert response.status_code == 404, f"{response.text} (a new body needs an example in VALID)"
    assert response.json == {"detail": "Workspace 'ml-team' not found"}


_CONFIG = {"engine": "generic", "model_spec": {}, "executor_config": {"gpu": 0}}
_STEP = {"name": "main", "executor": {"provider": "subprocess", "command": ["true"]}}
VALID = {
    "MemberCreate": {"principal": "ann@example.com"},
    "MemberUpdate": {"roles": ["Viewer"]},
    "ProjectCreate": {"name": "apollo"},
    "EntityCreate": {"data": {}},
    "EntityUpdate": {"data": {}},
    "DeletionProtectionUpdate": {"protected": True},
    "FilesetCreate": {"name": "data"},
    "JobCreate": {"source": "tests", "spec": {}, "platform_spec": {"steps": [_STEP]}},
    "DeploymentCreate": {"name": "chat", "config": "small"},
    "DeploymentVersionCreate": {"config": "small"},
    "StepStatusUpdate": {"status": "active"},
    "ResultCreate": {"artifact_url": "ml-team/data#a", "artifact_storage_type": "fileset"},
    "DeploymentStatusUpdate": {"status": "READY"},
    "DeploymentConfigCreate": {"name": "small", **_CONFIG},
    "DeploymentConfigVersionCreate": _CONFIG,
    "SecretCreate": {"name": "token", "value": "open sesame"},
}


def valid_body(route):
    """A body that the route accepts, so that the answer is about the workspace."""
    if route.body is None:
        return None
    return VALID.get(route.body.__name__, {})


@pytest.mark.parametrize(
    "path", ["//evil.example/", "/%09/evil.example/", "/apis//evil.example/", "/\\evil.example/"]
)
def test_no_address_redirects_to_another_host(client: FlaskClient, path: str) -> None:
    response = client.get(path)

    location = response.headers.get("Location", "")
    assert not re.match(r"(https?:)?[/\\]{2}(?!localhost)", location)
    assert "\t" not in location


def test_a_trailing_slash_leads_to_the_address_without_it(client: FlaskClient) -> None:
    response = client.get("/apis/entities/v2/workspaces/?page=1")

    assert response.status_code == 307
    assert response.headers["Location"].endswith("/apis/entities/v2/workspaces?page=1")


def test_an_unknown_path_and_a_wrong_method_are_told_apart(client: FlaskClient) -> None:
    missing, wrong = client.get("/nowhere"), client.patch("/apis/entities/v2/workspaces/default", json={})

    assert (missing.status_code, missing.json) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.json) == (405, {"detail": "Method Not Allowed"})
    assert "PUT" in wrong.headers["Allow"]
    assert "DELETE" in wrong.headers["Allow"]


def test_a_malformed_principal_is_refused(client: FlaskClient) -> None:
    response = client.get("/apis/entities/v2/workspaces", headers={"X-NMP-Principal-Id": "no spaces"})

    assert response.status_code == 400
    assert "X-NMP-Principal-Id" in response.json["detail"]
