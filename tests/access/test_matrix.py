"""Every route, requested by every kind of caller: the table of permissions, written a second time.

Each row says who is let in. A new route has no row and fails here: decide who may call it, then add the row.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from app.access.permissions import OPEN, TABLE
from app.access.roles import Role
from app.api.application import all_routes
from app.http.route import Route
from tests import factories
from tests.access.world import World, everything
from tests.support.people import OPERATOR, announced

ROUTES = {f"{route.method} {route.rule}": route for route in all_routes()}

NOBODY, OUTSIDER, PLATFORM_ADMIN = "anonymous", "outsider", "PlatformAdmin"
SERVICE = "service"
"""Let in everywhere; no caller of the table below."""
MEMBERS = ("Viewer", "JobRunner", "Editor", "Admin")
EVERYBODY = (NOBODY, OUTSIDER, *MEMBERS, PLATFORM_ADMIN)

ANYBODY = set(EVERYBODY)
AUTHENTICATED = ANYBODY - {NOBODY}
VIEWERS = {"Viewer", "Editor", "Admin", PLATFORM_ADMIN}
EDITORS = VIEWERS - {"Viewer"}
REPORTERS = EDITORS | {"JobRunner"}
ADMINS = EDITORS - {"Editor"}
OPERATORS = {PLATFORM_ADMIN}
SERVICES_ALONE: set[str] = set()


@dataclass(frozen=True)
class Row:
    """Who is let in, and a request that then succeeds; `path` replaces parameters of the address."""

    who: set[str]
    body: dict[str, Any] | None = None
    path: dict[str, str] = field(default_factory=dict)
    data: bytes | None = None
    status: int | None = None
    """The answer, where it is another than that of a success."""
    refusal: tuple[int, str] = (403, "Forbidden")
    """The answer to all others who are known, and how it begins."""


W = "/apis/entities/v2/workspaces"
IN = f"{W}/<workspace>"
FILES = "/apis/files/v2/workspaces/<workspace>/filesets"
JOBS = "/apis/jobs/v2/workspaces/<workspace>/jobs"
DEPLOYMENTS = "/apis/models/v2/workspaces/<workspace>/deployments"
CONFIGS = "/apis/models/v2/workspaces/<workspace>/deployment-configs"
SECRETS = "/apis/secrets/v2/workspaces/<workspace>/secrets"
BINDINGS = "/apis/auth/v2/iam/role-bindings"
KEYS = "/apis/auth/v2/access-keys"
DELETIONS = "/apis/entities/v2/deletions"
WEBHOOKS = "/apis/entities/v2/webhooks"
DELETION = f"{DELETIONS}/<deletion_id>"

STEP = {"name": "main", "executor": {"provider": "subprocess", "command": ["true"]}}
CONFIG = {"engine": "generic", "model_spec": {}, "executor_config": {"gpu": 0}}
PROJECT, ENTITY, SECRET = {"name": "alpha"}, {"name": "thing"}, {"name": "token"}
FILESET, JOB, ENDED = {"name": "data"}, {"name": "train"}, {"name": "ended"}
DEPLOYMENT, USED, UNUSED = {"name": "chat"}, {"name": "small"}, {"name": "unused"}
LOOK = {"as_of": "2100-01-01T00:00:00Z"}
BINDING, PENDING = {"name": "{binding}"}, {"deletion_id": "{pending}"}

ROWS: dict[str, Row] = {
    f"POST {W}": Row(AUTHENTICATED, {"name": "made-by-{persona}"}),
    f"GET {W}": Row(AUTHENTICATED),
    f"GET {IN}": Row(VIEWERS),
    f"PUT {IN}": Row(ADMINS, {"description": "new"}),
    f"DELETE {IN}": Row(ADMINS),
    f"GET {IN}/deletion-preview": Row(ADMINS),
    f"PUT {IN}/deletion-protection": Row(ADMINS, {"protected": True}),
    f"GET {IN}/members": Row(VIEWERS),
    f"POST {IN}/members": Row(ADMINS, {"principal": "new"}),
    f"PUT {IN}/members/<path:principal>": Row(ADMINS, {"roles": ["Editor"]}),
    f"DELETE {IN}/members/<path:principal>": Row(ADMINS),
    f"POST {BINDINGS}": Row(ADMINS, {"principal": "new", "role": "Editor", "workspace": "{workspace}"}),
    f"GET {BINDINGS}": Row(AUTHENTICATED),
    f"GET {BINDINGS}/<name>": Row(ADMINS, path=BINDING),
    f"DELETE {BINDINGS}/<name>": Row(ADMINS, path=BINDING),
    f"POST {IN}/projects": Row(EDITORS, {"name": "beta"}),
    f"GET {IN}/projects": Row(VIEWERS),
    f"GET {IN}/projects/<name>": Row(VIEWERS, path=PROJECT),
    f"PUT {IN}/projects/<name>": Row(EDITORS, {"description": "new"}, PROJECT),
    f"DELETE {IN}/projects/<name>": Row(EDITORS, path=PROJECT),
    f"POST {IN}/entities/<entity_type>": Row(EDITORS, {"data": {}}),
    f"GET {IN}/entities/<entity_type>": Row(VIEWERS),
    f"GET {IN}/entities/<entity_type>/<name>": Row(VIEWERS, path=ENTITY),
    f"PUT {IN}/entities/<entity_type>/<name>": Row(EDITORS, {"data": {"new": 1}}, ENTITY),
    f"DELETE {IN}/entities/<entity_type>/<name>": Row(EDITORS, path=ENTITY),
    "GET /apis/entities/v2/entities/<entity_id>": Row(VIEWERS),
    "GET /": Row(ANYBODY),
    "GET /cluster-info": Row(ANYBODY),
    "GET /health/live": Row(ANYBODY),
    "GET /health/ready": Row(ANYBODY),
    "GET /status": Row(ANYBODY),
    "GET /apis/auth/discovery": Row(ANYBODY),
    "GET /apis/auth/authenticate": Row(ANYBODY, status=401),
    "POST /apis/auth/authenticate": Row(ANYBODY, status=401),
    "GET /apis/auth/jwks": Row(ANYBODY),
    f"POST {KEYS}": Row(AUTHENTICATED, {"name": "mine"}),
    f"GET {KEYS}": Row(AUTHENTICATED),
    f"DELETE {KEYS}/<jti>": Row(AUTHENTICATED),
    f"POST {KEYS}/<jti>/suspend": Row(AUTHENTICATED),
    f"POST {KEYS}/<jti>/unsuspend": Row(AUTHENTICATED),
    "GET /metrics": Row(OPERATORS),
    "GET /openapi.json": Row(ANYBODY),
    "GET /docs": Row(ANYBODY),
    "GET /apis/auth/v2/audit": Row(OPERATORS),
    f"GET {DELETIONS}": Row(AUTHENTICATED),
    f"GET {DELETION}": Row(OPERATORS),
    f"GET {DELETION}/events": Row(OPERATORS),
    f"GET {DELETION}/failures": Row(OPERATORS),
    "GET /apis/entities/v2/deletion-events": Row(AUTHENTICATED),
    f"POST {DELETION}/retry": Row(OPERATORS),
    f"POST {DELETION}/skip": Row(
        OPERATORS, {"kind": "filesets", "resource_id": "{stuck}", "reason": "ticket 7"}
    ),
    f"POST {DELETION}/force": Row(OPERATORS, {"reason": "ticket 7"}),
    f"POST {DELETIONS}/retry": Row(OPERATORS, LOOK),
    f"POST {DELETIONS}/skip": Row(OPERATORS, {**LOOK, "kind": "filesets", "reason": "ticket 7"}),
    f"POST {DELETIONS}/force": Row(OPERATORS, {**LOOK, "reason": "ticket 7"}),
    "GET /apis/entities/v2/deletion-causes": Row(OPERATORS),
    f"POST {DELETION}/restore": Row(OPERATORS, {}, PENDING),
    "GET /apis/entities/v2/workspace-deletions/<name>": Row(
        OPERATORS, path={"name": "ml-team-failed"}, refusal=(404, "Workspace 'ml-team-failed' not found")
    ),
    "GET /apis/entities/v2/cleanup-control": Row(OPERATORS),
    "PUT /apis/entities/v2/cleanup-control": Row(OPERATORS, {"paused": True}),
    f"POST {FILES}": Row(EDITORS, {"name": "more"}),
    f"GET {FILES}": Row(VIEWERS),
    f"GET {FILES}/<name>": Row(VIEWERS, path=FILESET),
    f"PATCH {FILES}/<name>": Row(EDITORS, {"description": "new"}, FILESET),
    f"DELETE {FILES}/<name>": Row(EDITORS, path=FILESET),
    f"POST {FILES}/<name>/refresh": Row(EDITORS, path=FILESET, status=409),
    f"GET {FILES}/<name>/files": Row(VIEWERS, path=FILESET),
    f"PUT {FILES}/<name>/-/<path:path>": Row(EDITORS, path=FILESET, data=b"new"),
    f"GET {FILES}/<name>/-/<path:path>": Row(VIEWERS, path=FILESET),
    f"DELETE {FILES}/<name>/-/<path:path>": Row(EDITORS, path=FILESET),
    f"POST {FILES}/<name>/otlp/v1/logs": Row(EDITORS, path=FILESET, data=b'{"resourceLogs": []}'),
    f"POST {FILES}/<name>/otlp/v1/logs/query": Row(VIEWERS, {}, FILESET),
    f"POST {JOBS}": Row(EDITORS, {"source": "tests", "spec": {}, "platform_spec": {"steps": [STEP]}}),
    f"GET {JOBS}": Row(VIEWERS),
    f"GET {JOBS}/<name>": Row(VIEWERS, path=JOB),
    f"POST {JOBS}/<name>/cancel": Row(EDITORS, path=JOB),
    f"POST {JOBS}/<name>/pause": Row(EDITORS, path=JOB),
    f"POST {JOBS}/<name>/resume": Row(EDITORS, path=JOB),
    f"DELETE {JOBS}/<name>": Row(EDITORS, path=JOB),
    f"PATCH {JOBS}/<name>/status-details": Row(REPORTERS, {"step": 7}, JOB),
    "GET /apis/jobs/v2/execution-profiles": Row(AUTHENTICATED),
    f"GET {JOBS}/<name>/status": Row(VIEWERS, path=JOB),
    f"GET {JOBS}/<name>/steps": Row(VIEWERS, path=JOB),
    f"GET {JOBS}/<name>/logs": Row(VIEWERS, path=JOB),
    f"GET {JOBS}/<name>/results": Row(VIEWERS, path=JOB),
    f"POST {JOBS}/<name>/rerun": Row(EDITORS, path=ENDED),
    f"GET {JOBS}/<name>/steps/<step>": Row(VIEWERS, path=JOB),
    f"PATCH {JOBS}/<name>/steps/<step>/status": Row(REPORTERS, {"status": "active"}, JOB),
    f"GET {JOBS}/<name>/steps/<step>/tasks": Row(VIEWERS, path=JOB),
    f"GET {JOBS}/<name>/steps/<step>/tasks/<task>": Row(VIEWERS, path=JOB),
    f"PUT {JOBS}/<name>/steps/<step>/tasks/<task>": Row(REPORTERS, {"status": "active"}, JOB),
    f"POST {JOBS}/<name>/results/<result>": Row(
        REPORTERS, {"artifact_url": "{workspace}/data#a.txt", "artifact_storage_type": "fileset"}, JOB
    ),
    f"GET {JOBS}/<name>/results/<result>": Row(VIEWERS, path=JOB),
    f"GET {JOBS}/<name>/results/<result>/download": Row(VIEWERS, path=JOB),
    "GET /apis/jobs/v2/hosts": Row(OPERATORS),
    "POST /apis/jobs/v2/hosts/<host>/purge": Row(OPERATORS, path={"host": "mistyped"}, status=404),
    f"POST {WEBHOOKS}": Row(OPERATORS, {"url": "https://hooks.example.com/"}),
    f"GET {WEBHOOKS}": Row(OPERATORS),
    f"GET {WEBHOOKS}/<webhook_id>": Row(OPERATORS),
    f"PATCH {WEBHOOKS}/<webhook_id>": Row(OPERATORS, {"is_enabled": False}),
    f"DELETE {WEBHOOKS}/<webhook_id>": Row(OPERATORS),
    f"POST {WEBHOOKS}/<webhook_id>/rotate-secret": Row(OPERATORS),
    f"POST {WEBHOOKS}/<webhook_id>/test": Row(OPERATORS),
    f"GET {WEBHOOKS}/<webhook_id>/deliveries": Row(OPERATORS),
    f"POST {WEBHOOKS}/<webhook_id>/deliveries/<delivery_id>/redeliver": Row(OPERATORS),
    f"POST {DEPLOYMENTS}": Row(EDITORS, {"name": "more", "config": "small"}),
    f"GET {DEPLOYMENTS}": Row(VIEWERS),
    f"GET {DEPLOYMENTS}/<name>": Row(VIEWERS, path=DEPLOYMENT),
    f"POST {DEPLOYMENTS}/<name>": Row(EDITORS, {"config": "small"}, DEPLOYMENT),
    f"DELETE {DEPLOYMENTS}/<name>": Row(EDITORS, path=DEPLOYMENT),
    f"GET {DEPLOYMENTS}/<name>/versions": Row(VIEWERS, path=DEPLOYMENT),
    f"GET {DEPLOYMENTS}/<name>/versions/<version>": Row(VIEWERS, path=DEPLOYMENT),
    f"DELETE {DEPLOYMENTS}/<name>/versions/<version>": Row(EDITORS, path=DEPLOYMENT),
    f"POST {DEPLOYMENTS}/<name>/status": Row(EDITORS, {"status": "LOST"}, DEPLOYMENT),
    f"GET {DEPLOYMENTS}/<name>/models": Row(VIEWERS, path=DEPLOYMENT),
    "GET /apis/inference-gateway/v2/workspaces/<workspace>/provider/<name>/ready": Row(
        VIEWERS, path=DEPLOYMENT
    ),
    f"POST {CONFIGS}": Row(EDITORS, {"name": "more", **CONFIG}),
    f"GET {CONFIGS}": Row(VIEWERS),
    f"GET {CONFIGS}/<name>": Row(VIEWERS, path=USED),
    f"POST {CONFIGS}/<name>": Row(EDITORS, CONFIG, USED),
    f"DELETE {CONFIGS}/<name>": Row(EDITORS, path=UNUSED),
    f"GET {CONFIGS}/<name>/versions": Row(VIEWERS, path=USED),
    f"GET {CONFIGS}/<name>/versions/<version>": Row(VIEWERS, path=USED),
    f"DELETE {CONFIGS}/<name>/versions/<version>": Row(EDITORS, path=UNUSED),
    f"POST {SECRETS}": Row(EDITORS, {"name": "more", "value": "x"}),
    f"GET {SECRETS}": Row(VIEWERS),
    f"GET {SECRETS}/<name>": Row(VIEWERS, path=SECRET),
    f"PATCH {SECRETS}/<name>": Row(EDITORS, {"value": "x"}, SECRET),
    f"DELETE {SECRETS}/<name>": Row(EDITORS, path=SECRET),
    f"GET {SECRETS}/<name>/access": Row(SERVICES_ALONE, path=SECRET),
    "POST /apis/secrets/v2/rotate-encryption-keys": Row(OPERATORS),
}


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    assert ROUTES.keys() - ROWS.keys() == set(), "decide who may call these routes, and add their rows above"
    assert ROWS.keys() - ROUTES.keys() == set(), "these routes are gone; remove their rows"


@pytest.mark.parametrize("name", ROWS)
def test_a_route_agrees_with_the_table_of_roles(name: str) -> None:
    """The permission that the route names lets in just those members that its row does."""
    permission = ROUTES[name].permission
    by_table = {role for role in MEMBERS if permission in TABLE[Role(role)]}

    expected = ROWS[name].who & set(MEMBERS)
    is_for_whoever_asks = ROWS[name].who >= AUTHENTICATED
    assert by_table == expected or is_for_whoever_asks


@pytest.mark.parametrize("persona", EVERYBODY)
@pytest.mark.parametrize("name", ROWS)
def test_a_route_lets_in_whom_its_row_names_and_nobody_else(
    client: FlaskClient, world: World, session: Session, name: str, persona: str
) -> None:
    route, row = ROUTES[name], ROWS[name]
    if persona in MEMBERS:
        factories.make_binding(session, world.workspace, f"the-{persona.lower()}", persona)
    if "<jti>" in route.rule:
        owner = "the-operator" if persona == PLATFORM_ADMIN else f"the-{persona.lower()}"
        factories.make_access_key(session, world.parameters["jti"], owner)
    session.commit()
    before = everything(session)

    answer = ask(client, route, row, world, persona)

    if persona in row.who:
        assert answer.status_code == (row.status or route.status), answer.text
        return
    assert (answer.status_code, answer.json["detail"].partition(":")[0]) == (
        (401, "Unauthorized") if persona == NOBODY and route.permission not in OPEN else row.refusal
    )
    assert everything(session) == before
    if "<workspace>" in route.rule and persona not in MEMBERS:
        missing = ask(client, route, row, world, persona, workspace="no-such-workspace")
        assert (missing.status_code, missing.json) == (answer.status_code, answer.json)


def ask(
    client: FlaskClient,
    route: Route,
    row: Row,
    world: World,
    persona: str,
    *,
    headers: dict[str, str] | None = None,
    **instead: str,
) -> TestResponse:
    """Send the request of the row, as that persona, or with these headers."""
    known = world.parameters | {
        "pending": str(world.pending.id),
        "stuck": world.stuck,
        "persona": persona.lower(),
    }
    path = {key: value.format(**known) for key, value in (known | row.path | instead).items()}
    address = re.sub(r"<(?:\w+:)?(\w+)>", lambda match: path[match[1]], route.rule)
    body = {k: v.format(**known) if isinstance(v, str) else v for k, v in (row.body or {}).items()}
    content = {"data": row.data} if row.data else {"json": body} if route.body else {}
    return client.open(address, method=route.method, headers=headers or credentials(persona), **content)


def credentials(persona: str) -> dict[str, str]:
    if persona == NOBODY:
        return {}
    if persona == PLATFORM_ADMIN:
        return announced("the-operator", email=OPERATOR)
    if persona == SERVICE:
        return announced("service:jobs")
    return announced(f"the-{persona.lower()}")
