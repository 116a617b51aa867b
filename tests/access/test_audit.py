"""The audit log: complete, unchangeable, and there for as long as the database is."""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.cleanup.engine import run_slice
from app.cli.principal import principal
from app.cli.runtime import runtime
from app.config import Settings
from app.context import Context
from app.maintenance.retention import record_retentions
from app.maintenance.sweep import sweep
from app.models import AuditRecord, Delivery, Workspace
from app.models.audit import AuditEvent
from app.notifications.sending import send_due
from tests.access.world import World
from tests.factories import make_job, make_workspace
from tests.notifications.receiver import free_port
from tests.support.aging import age_everything
from tests.support.keys import KEY, OTHER_KEY, write_keys
from tests.support.people import OPERATOR, announced

W = "/apis/entities/v2/workspaces"
BINDINGS = "/apis/auth/v2/iam/role-bindings"
DELETIONS = "/apis/entities/v2/deletions"
CONTROL = "/apis/entities/v2/cleanup-control"
AUDIT = "/apis/auth/v2/audit"
ANN = announced("ann", email="ann@example.com") | {"X-Request-Id": "request-of-ann"}
ADMIN = announced("the-operator", email=OPERATOR) | {"X-Request-Id": "request-of-the-operator"}


def lines(client: FlaskClient, **query: Any) -> list[dict[str, Any]]:
    """The log, the oldest line first."""
    answer = client.get(AUDIT, query_string={"sort": "at", **query}, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json["data"]
    return found


@pytest.fixture
def send(client: FlaskClient) -> Callable[..., Any]:
    """Send a request that has to succeed; returns its audit records and its answer."""

    def do(method: str, path: str, body: Any = None, by: dict[str, str] = ANN) -> tuple[list[Any], Any]:
        before = len(lines(client))
        answer = client.open(path, method=method, json=body, headers=by)
        assert answer.status_code < 300, answer.text
        added = lines(client)[before:]
        for line in added:
            assert line["request_id"] == by["X-Request-Id"]
            assert (line["actor"], line["address"]) == (by["X-NMP-Principal-Id"], "127.0.0.1")
            assert (line["email"], line["service"]) == (by["X-NMP-Principal-Email"], "")
        return [(one["event"], one["subject"], one["detail"]) for one in added], answer.json

    return do


@pytest.fixture(autouse=True)
def seen(client: FlaskClient) -> Iterator[set[str]]:
    """Every event that a test of this module has found in the log."""
    yield SEEN
    SEEN.update(line["event"] for line in lines(client))


SEEN: set[str] = set()


def test_the_life_of_an_access_key_is_on_record_without_its_token(send: Callable[..., Any]) -> None:
    keys = "/apis/auth/v2/access-keys"
    [(event, jti, detail)], key = send("POST", keys, {"name": "ci", "expires_in_seconds": None})
    assert (event, jti, detail) == ("access_key.created", key["jti"], {"principal": "ann"})

    one = f"{keys}/{jti}"
    for method, path, expected in (
        ("POST", f"{one}/suspend", "access_key.suspended"),
        ("POST", f"{one}/unsuspend", "access_key.unsuspended"),
        ("DELETE", one, "access_key.revoked"),
    ):
        assert send(method, path)[0] == [(expected, jti, {"principal": "ann"})]
    assert send("DELETE", one)[0] == []

    [(_, _, detail)], key = send("POST", keys, {"service_account_id": "ci"}, ADMIN)
    assert detail["principal"] == "service-account:ci"
    assert detail["expires_at"][:19] == key["expires_at"][:19]
    assert key["token"] not in str(detail)


def test_the_life_of_a_workspace_is_on_record(send: Callable[..., Any]) -> None:
    assert send("POST", W, {"name": "ml-team"})[0] == [
        ("workspace.created", None, {}),
        ("member.granted", "ann@example.com", {"role": "Admin"}),
    ]
    assert send("PUT", f"{W}/ml-team", {"description": "x"})[0] == [("workspace.updated", None, {})]
    assert send("PUT", f"{W}/ml-team", {"description": "x"})[0] == []
    protection = f"{W}/ml-team/deletion-protection"
    assert send("PUT", protection, {"protected": True})[0] == [("workspace.protected", None, {})]
    assert send("PUT", protection, {"protected": True})[0] == []
    assert send("PUT", protection, {"protected": False})[0] == [("workspace.unprotected", None, {})]
    added, answer = send("DELETE", f"{W}/ml-team")
    assert added == [("deletion.requested", answer["deletion_id"], {})]
    assert send("DELETE", f"{W}/ml-team")[0] == []
    again = f"{DELETIONS}/{answer['deletion_id']}/restore"
    assert send("POST", again, {"name": "ml-team-2"})[0] == [
        ("workspace.restored", answer["deletion_id"], {"deleted_as": "ml-team"})
    ]


def test_the_record_of_an_action_on_behalf_of_a_user_names_user_and_service(client: FlaskClient) -> None:
    delegated = announced("service:jobs") | {
        "X-NMP-Principal-On-Behalf-Of": "ann@example.com",
        "X-NMP-Principal-On-Behalf-Of-Email": "ann@mail.example.com",
    }

    assert client.post(W, json={"name": "ml-team"}, headers=delegated).status_code == 201

    found = lines(client, **{"filter[service]": "service:jobs"})
    assert [one["event"] for one in found] == ["workspace.created", "member.granted"]
    assert {(one["actor"], one["email"]) for one in found} == {("ann@example.com", "ann@mail.example.com")}
    assert lines(client, **{"filter[email]": "ann@mail.example.com"}) == found


def test_every_change_of_a_members_roles_is_a_line(send: Callable[..., Any]) -> None:
    send("POST", W, {"name": "ml-team"})
    members = f"{W}/ml-team/members"

    assert send("POST", members, {"principal": "bob", "roles": ["Viewer", "Editor"]})[0] == [
        ("member.granted", "bob", {"role": "Viewer"}),
        ("member.granted", "bob", {"role": "Editor"}),
    ]
    assert send("POST", members, {"principal": "bob", "roles": ["Editor"]})[0] == []
    assert send("PUT", f"{members}/bob", {"roles": ["Editor", "Admin"]})[0] == [
        ("member.revoked", "bob", {"role": "Viewer"}),
        ("member.granted", "bob", {"role": "Admin"}),
    ]
    assert send("DELETE", f"{members}/bob")[0] == [
        ("member.revoked", "bob", {"role": "Editor"}),
        ("member.revoked", "bob", {"role": "Admin"}),
    ]
    added, binding = send("POST", BINDINGS, {"principal": "eve", "role": "Viewer", "workspace": "ml-team"})
    assert added == [("member.granted", "eve", {"role": "Viewer"})]
    assert send("DELETE", f"{BINDINGS}/{binding['name']}")[0] == [
        ("member.revoked", "eve", {"role": "Viewer"})
    ]


@pytest.mark.parametrize("verb", ["retry", "skip", "force"])
def test_what_operators_do_to_a_failed_deletion_is_on_record(
    send: Callable[..., Any], world: World, verb: str
) -> None:
    stuck = {"kind": "filesets", "resource_id": world.stuck, "reason": "ticket 7"}
    body = {"retry": None, "skip": stuck, "force": {"reason": "ticket 7"}}[verb]

    added, _ = send("POST", f"{DELETIONS}/{world.failed.id}/{verb}", body, ADMIN)

    given_up = {"deletion_id": str(world.failed.id), "name": "stuck", "reason": "ticket 7"}
    assert (
        added
        == {
            "retry": [("deletion.retried", str(world.failed.id), {})],
            "skip": [("deletion.skipped", f"filesets/{world.stuck}", given_up)],
            "force": [("deletion.forced", str(world.failed.id), {"reason": "ticket 7"})],
        }[verb]
    )


def test_the_life_of_a_secret_is_on_record_without_its_value(
    send: Callable[..., Any], client: FlaskClient, context: Context, tmp_path: Path
) -> None:
    send("POST", W, {"name": "ml-team"})
    secrets = "/apis/secrets/v2/workspaces/ml-team/secrets"

    assert send("POST", secrets, {"name": "token", "value": "open sesame"})[0] == [
        ("secret.created", "token", {})
    ]
    assert send("PATCH", f"{secrets}/token", {"description": "x"})[0] == [("secret.updated", "token", {})]
    assert send("PATCH", f"{secrets}/token", {"description": "x"})[0] == []
    assert send("PATCH", f"{secrets}/token", {"value": "y"})[0] == [
        ("secret.updated", "token", {"value": True})
    ]
    keys = write_keys(tmp_path / "keys", OTHER_KEY, KEY)
    settings = context.settings.model_copy(update={"secrets_key_file": keys})
    object.__setattr__(context, "settings", settings)
    rotate = "/apis/secrets/v2/rotate-encryption-keys"
    assert send("POST", rotate, by=ADMIN)[0] == [("secrets.rotated", None, {"rotated": 1})]
    assert send("POST", rotate, by=ADMIN)[0] == []
    assert send("DELETE", f"{secrets}/token")[0] == [("secret.deleted", "token", {})]


def test_pausing_is_on_record(send: Callable[..., Any]) -> None:
    assert send("PUT", CONTROL, {"paused": True}, ADMIN)[0] == [("destruction.paused", None, {})]
    assert send("PUT", CONTROL, {"paused": True}, ADMIN)[0] == []
    assert send("PUT", CONTROL, {"paused": False}, ADMIN)[0] == [("destruction.resumed", None, {})]


def test_the_breaker_is_on_record_by_its_own_name_and_so_is_a_release(
    client: FlaskClient, session: Session, send: Callable[..., Any]
) -> None:
    for number in range(5):
        client.post(W, json={"name": f"old-{number}"}, headers=ANN)
    session.execute(update(Workspace).values(created_at=Workspace.created_at - timedelta(hours=1)))
    session.commit()
    for number in range(5):
        client.delete(f"{W}/old-{number}", headers=ANN)

    (line,) = lines(client, **{"filter[event]": "deletions.held"})
    assert (line["actor"], line["address"], line["request_id"]) == ("service:breaker", "", "")
    assert line["subject"] == "ann"
    assert line["detail"] == {"reason": "5 of 5 workspaces were deleted within 600 s"}
    assert send("PUT", CONTROL, {"release": "ann"}, ADMIN)[0] == [("deletions.released", "ann", {})]


def test_a_host_that_an_operator_purges_is_on_record(
    client: FlaskClient, session: Session, context: Context
) -> None:
    make_job(session, make_workspace(session, "ml-team"), host="gone")
    session.commit()

    assert CliRunner().invoke(runtime, ["purge", "--direct", "gone"], obj=context).exit_code == 0

    (line,) = lines(client, **{"filter[event]": "host.purged"})
    assert line["actor"] == f"service:cli@{socket.gethostname()}"
    assert (line["subject"], line["detail"]) == ("gone", {"jobs": 1, "deployments": 0})


def test_who_is_notified_is_on_record_without_secret_and_path(
    send: Callable[..., Any], client: FlaskClient, session: Session, context: Context
) -> None:
    webhooks = "/apis/entities/v2/webhooks"
    host = {"receiver": "127.0.0.1"}
    url = f"http://127.0.0.1:{free_port()}/secret-path"
    private = context.settings.model_copy(update={"webhooks_to_private_addresses": True})
    object.__setattr__(context, "settings", private)
    types = ["deletion.failed"]
    added, answer = send("POST", webhooks, {"url": url, "types": types}, ADMIN)
    made = answer["id"]
    one = f"{webhooks}/{made}"

    assert added == [("webhook.created", made, {**host, "types": types})]
    assert send("PATCH", one, {"description": "x"}, ADMIN)[0] == [("webhook.updated", made, host)]
    assert send("PATCH", one, {"description": "x"}, ADMIN)[0] == []
    assert send("POST", f"{one}/rotate-secret", None, ADMIN)[0] == [("webhook.secret_rotated", made, host)]
    added, answer = send("POST", f"{one}/test", None, ADMIN)
    assert added == [("webhook.tested", made, {})]
    test = answer["id"]
    assert send("POST", f"{one}/deliveries/{test}/redeliver", None, ADMIN)[0] == [
        ("webhook.redelivered", made, {"delivery_id": test})
    ]
    age_everything(session, 4 * 86400)
    session.execute(update(Delivery).values(next_attempt_at=Delivery.due_at))
    session.commit()
    send_due(context, UUID(made), owner="test")
    (line,) = lines(client, **{"filter[event]": "webhook.disabled"})
    assert (line["actor"], line["subject"]) == ("service:notify", made)
    assert send("DELETE", one, None, ADMIN)[0] == [("webhook.deleted", made, host)]


def test_the_end_of_old_lines_is_on_record(client: FlaskClient, session: Session, context: Context) -> None:
    record_retentions(context.settings.model_copy(update={"audit_retention_days": 1}))
    session.add(AuditRecord(event="workspace.created", actor="ann", at=datetime(2020, 1, 1, tzinfo=UTC)))
    session.commit()

    sweep(context)

    (line,) = lines(client)
    assert (line["event"], line["actor"], line["subject"]) == (
        "records.pruned",
        "service:maintenance",
        "audit_records",
    )
    assert line["detail"]["number"] == 1


def test_who_was_forgotten_is_on_record_by_a_pseudonym_alone(client: FlaskClient, context: Context) -> None:
    client.post(W, json={"name": "ml-team"}, headers=announced("bob"))
    client.delete(f"{W}/ml-team", headers=announced("bob"))
    (deletion,) = client.get(f"{DELETIONS}?scope=all", headers=ADMIN).json["data"]
    for _ in range(20):
        run_slice(context, UUID(deletion["id"]), owner="test")

    done = CliRunner().invoke(principal, ["forget", "bob", "--yes"], obj=context)

    assert done.exit_code == 0, done.output
    found = lines(client)
    pseudonym = found[-1]["subject"]
    assert [(one["event"], one["actor"], one["subject"]) for one in found] == [
        ("workspace.created", pseudonym, None),
        ("member.granted", pseudonym, pseudonym),
        ("deletion.requested", pseudonym, deletion["id"]),
        ("principal.forgotten", f"service:cli@{socket.gethostname()}", pseudonym),
    ]
    assert {one["address"] for one in found} == {""}


def test_every_event_is_recorded_by_some_test_above() -> None:
    assert set(AuditEvent) == SEEN, "an event is never recorded, or no test here makes it happen"


def test_what_was_refused_or_rolled_back_leaves_no_line(client: FlaskClient) -> None:
    client.post(W, json={"name": "ml-team"}, headers=ANN)
    before = lines(client)

    for method, path, body, by in (
        ("POST", W, {"name": "ml-team"}, ANN),
        ("POST", W, {"name": "!"}, ANN),
        ("DELETE", f"{W}/ml-team", None, announced("eve")),
        ("DELETE", f"{W}/default", None, ADMIN),
        ("PUT", f"{W}/ml-team/members/ann@example.com", {"roles": ["Viewer"]}, ANN),
        ("POST", f"{W}/ml-team/members", {"principal": "eve"}, announced("eve")),
    ):
        assert client.open(path, method=method, json=body, headers=by).status_code >= 400

    assert lines(client) == before


def test_the_log_outlives_the_workspace(client: FlaskClient, context: Context, session: Session) -> None:
    made = client.post(W, json={"name": "ml-team"}, headers=ANN).json
    deletion = UUID(client.delete(f"{W}/ml-team", headers=ANN).json["deletion_id"])
    client.post(W, json={"name": "ml-team"}, headers=announced("bob"))

    for _ in range(20):
        run_slice(context, deletion, owner="test")

    session.rollback()
    assert session.scalars(select(Workspace.id).where(Workspace.id == UUID(made["id"]))).all() == []
    found = lines(client, **{"filter[workspace_id]": made["id"]})
    assert [one["event"] for one in found] == ["workspace.created", "member.granted", "deletion.requested"]
    assert {one["workspace_name"] for one in found} == {"ml-team"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_records SET actor = 'nobody'",
        "UPDATE audit_records SET actor = 'nobody' WHERE false",
        "DELETE FROM audit_records",
        "TRUNCATE audit_records",
    ],
)
def test_the_database_refuses_to_change_it(client: FlaskClient, session: Session, statement: str) -> None:
    client.post(W, json={"name": "ml-team"}, headers=ANN)

    with pytest.raises(DBAPIError, match="audit_records is append-only"):
        session.execute(text(statement))

    session.rollback()
    assert len(lines(client)) == 2


def test_it_is_paged_and_filtered_and_the_newest_comes_first(client: FlaskClient) -> None:
    for name in ("one", "two", "three"):
        client.post(W, json={"name": name}, headers=ANN)
    client.post(W, json={"name": "four"}, headers=announced("bob") | {"X-Request-Id": "request-of-bob"})

    page = client.get(f"{AUDIT}?page_size=3", headers=ADMIN).json

    assert page["pagination"]["total_results"] == 8
    assert [(one["event"], one["workspace_name"]) for one in page["data"]] == [
        ("member.granted", "four"),
        ("workspace.created", "four"),
        ("member.granted", "three"),
    ]
    for query, expected in (
        ({"filter[actor]": "bob"}, 2),
        ({"filter[event]": "workspace.created"}, 4),
        ({"filter[workspace_name]": "two"}, 2),
        ({"filter[request_id]": "request-of-bob"}, 2),
        ({"filter": 'subject:"bob" AND address:"127.0.0.1"'}, 1),
        ({"filter[at][gte]": "2100-01-01T00:00:00Z"}, 0),
    ):
        assert len(lines(client, **query)) == expected, query
    assert client.get(f"{AUDIT}?filter[password]=x", headers=ADMIN).status_code == 400
    assert client.get(f"{AUDIT}?sort=actor", headers=ADMIN).status_code == 400


class TestBehindAProxy:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"trusted_proxies": 1})

    def test_the_address_is_what_the_last_proxy_says(self, client: FlaskClient) -> None:
        forwarded = {"X-Forwarded-For": "6.6.6.6, 192.0.2.7"}

        client.post(W, json={"name": "ml-team"}, headers=ANN | forwarded)

        assert {line["address"] for line in lines(client)} == {"192.0.2.7"}


def test_without_trusted_proxies_nobody_chooses_their_address(client: FlaskClient) -> None:
    client.post(W, json={"name": "ml-team"}, headers=ANN | {"X-Forwarded-For": "6.6.6.6"})

    assert {line["address"] for line in lines(client)} == {"127.0.0.1"}
