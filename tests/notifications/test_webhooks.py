"""Webhooks over HTTP: their routes, what they refuse, and who sees their secrets."""

import json
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.errors import Conflict
from app.lifecycle import NotificationType
from app.models import AuditRecord, Subscription
from app.notifications import subscriptions
from tests import factories
from tests.notifications.conftest import ROOT, Subscribed, deliveries, with_settings
from tests.notifications.receiver import Receiver
from tests.support.aging import age_everything
from tests.support.application import answering_from

BASE = "/apis/entities/v2/webhooks"
URL = "https://hooks.example.com/services/T0/very-secret-path"
DEADLINE_S = 30


@pytest.fixture
def created(client: FlaskClient) -> dict[str, Any]:
    answer = client.post(BASE, json={"url": URL, "description": "the operators' channel"})
    assert answer.status_code == 201
    return answer.json


def test_a_webhook_shows_its_secret_once(client, created):
    secret = created.pop("secret")
    assert secret.startswith("whsec_")
    assert created["types"] == [one.value for one in subscriptions.TYPES]
    assert (created["url"], created["is_enabled"], created["failures"]) == (URL, True, 0)

    one, listed = client.get(f"{BASE}/{created['id']}"), client.get(BASE)

    assert one.json == created
    assert listed.json["data"] == [created]
    assert listed.json["pagination"]["total_results"] == 1
    assert secret not in one.text + listed.text


def test_a_webhook_is_changed_disabled_and_deleted(client, session, created):
    path = f"{BASE}/{created['id']}"
    changed = client.patch(path, json={"types": ["deletion.failed"], "is_enabled": False}).json
    assert (changed["types"], changed["is_enabled"], changed["url"]) == (["deletion.failed"], False, URL)
    assert (
        client.patch(path, json={"url": "https://other.example.com/"}).json["url"].startswith("https://other")
    )
    assert client.patch(path, json={"is_enabled": True}).json["is_enabled"]

    assert client.delete(path).json["id"] == created["id"]

    assert client.get(path).status_code == client.delete(path).status_code == 404
    events = session.scalars(select(AuditRecord.event).order_by(AuditRecord.id)).all()
    assert events == ["webhook.created", *["webhook.updated"] * 3, "webhook.deleted"]
    details = [json.dumps(one) for one in session.scalars(select(AuditRecord.detail))]
    assert all("very-secret-path" not in one for one in details)
    assert "hooks.example.com" in details[0]


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://",
        "https:///path",
        "https://user:password@hooks.example.com/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com:0/",
        "https://hooks.example.com/a b",
        "https://hooks.example.com/\r\nX: y",
        "https://hööks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "gopher://x",
        "hooks",
        "https://[::1",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/",
        "MAILTO:ops@example.com",
        "mailto:ops",
    ],
)
def test_what_cannot_be_notified_is_refused(context, url):
    by_default = answering_from(with_settings(context, webhooks_to_private_addresses=False))

    answer = by_default.test_client().post(BASE, json={"url": url})

    assert answer.status_code == 400, answer.json
    assert answer.json["detail"].startswith("url ")


@pytest.mark.parametrize("types", [[], ["deletion.exploded"], ["notification.test"], "deletion.failed"])
def test_what_nobody_can_subscribe_to_is_refused(client, types):
    assert client.post(BASE, json={"url": URL, "types": types}).status_code == 422


def test_an_empty_change_and_what_is_not_there_are_refused(client, created):
    path = f"{BASE}/{created['id']}"
    assert client.patch(path, json={}).status_code == 422
    assert client.patch(path, json={"url": "mailto:ops@example.com"}).status_code == 409
    for method, rest in (("get", ""), ("delete", ""), ("post", "/test"), ("get", "/deliveries")):
        assert getattr(client, method)(f"{BASE}/{uuid7()}{rest}").status_code == 404
    assert client.post(f"{path}/deliveries/{uuid7()}/redeliver").status_code == 404
    assert client.get(f"{BASE}/nonsense").status_code == 404


def test_without_keys_no_webhook_is_made(context):
    without = answering_from(with_settings(context, secrets_key_file="")).test_client()

    answer = without.post(BASE, json={"url": URL})

    assert (answer.status_code, answer.json["code"]) == (409, "secrets_disabled")
    assert "WORKSPACES_SECRETS_KEY_FILE" in answer.json["detail"]


def test_there_are_no_more_than_so_many(client, session, monkeypatch):
    monkeypatch.setattr(subscriptions, "MOST", 1)
    assert client.post(BASE, json={"url": URL}).status_code == 201

    answer = client.post(BASE, json={"url": URL})

    assert answer.status_code == 409
    assert "delete one first" in answer.json["detail"]


def test_two_at_once_are_not_both_the_last(context, session, subscribe, monkeypatch):
    monkeypatch.setattr(subscriptions, "MOST", 1)
    with ThreadPoolExecutor() as pool:
        subscriptions.create_subscription(session, context, ROOT, url=URL, types=subscriptions.TYPES)
        second = pool.submit(subscribe, URL)
        wait_until_waiting(session, second)
        session.commit()

        with pytest.raises(Conflict, match="delete one first"):
            second.result(DEADLINE_S)

    assert session.scalar(select(func.count()).select_from(Subscription)) == 1


def wait_until_waiting(session, call):
    """Return once another session waits for a lock. Fails if `call`, which should, ends before."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = monotonic() + DEADLINE_S
    with Session(session.get_bind()) as observer:
        while not observer.scalar(waiting):
            observer.rollback()  # what it sees of others stays the same within a transaction
            assert not call.done(), "it has not waited"
            assert monotonic() < deadline


def test_a_rotation_shows_the_new_secret_once(client, created):
    path = f"{BASE}/{created['id']}"
    rotated = client.post(f"{path}/rotate-secret").json

    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != created["secret"]
    assert rotated["older_secret_until"] > rotated["updated_at"]
    assert "secret" not in client.get(path).json


def test_deliveries_are_listed_newest_first_page_by_page_and_sent_again(
    client: FlaskClient, session: Session, receiver: Receiver, delete, send
):
    made = client.post(BASE, json={"url": receiver.url, "types": ["deletion.requested"]}).json
    ours = Subscribed(made["id"], made["secret"])
    for name in ("one", "two", "three"):
        factories.make_workspace(session, name)
        session.commit()
        delete(name)
    path = f"{BASE}/{ours.id}/deliveries"
    receiver.status = 500
    send(ours)

    first = client.get(path, query_string={"after": "", "page_size": 2}).json
    second = client.get(path, query_string={"after": first["after"], "page_size": 2}).json
    listed = [*first["data"], *second["data"]]
    assert [one["id"] for one in listed] == [str(one.id) for one in reversed(deliveries(session))]
    failed = listed[-1]
    assert (failed["status"], failed["attempts"], failed["answer_code"]) == ("PENDING", 1, 500)
    assert failed["error"] == "the receiver answers 500"
    by_status = client.get(path, query_string={"filter": json.dumps({"status": "GIVEN_UP"})})
    assert by_status.json["data"] == []

    again = client.post(f"{path}/{failed['id']}/redeliver")

    assert (again.status_code, again.json["attempts"], again.json["id"]) == (202, 0, failed["id"])
    receiver.status = 204
    send(ours)
    assert {one["status"] for one in client.get(path).json["data"]} == {"DELIVERED"}
    tested = client.post(f"{BASE}/{ours.id}/test")
    assert (tested.status_code, tested.json["type"]) == (202, "notification.test")
    client.patch(f"{BASE}/{ours.id}", json={"is_enabled": False})
    for action in (f"{path}/{failed['id']}/redeliver", f"{BASE}/{ours.id}/test"):
        refused = client.post(action)
        assert (refused.status_code, "enable it first" in refused.json["detail"]) == (409, True)


def test_secrets_are_nowhere(client, session, context, receiver, delete, send, publisher, caplog):
    """Neither in the database nor in the log, nor in messages, errors or the audit log; the URL in no log either."""
    factories.make_workspace(session)
    session.commit()
    made = client.post(BASE, json={"url": receiver.url}).json
    ours = Subscribed(made["id"], made["secret"])
    rotated = client.post(f"{BASE}/{ours.id}/rotate-secret").json["secret"]
    delete("ml-team")
    receiver.status = 500
    send(ours)
    age_everything(session, 4 * 86400)
    send(ours)

    tables = session.scalars(
        text("SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = current_schema()")
    )
    stored = "".join(
        str(session.execute(text(f"SELECT t::text FROM {table} t")).all()) for table in tables.all()
    )
    said = caplog.text + repr(publisher.published) + client.get(f"{BASE}/{ours.id}/deliveries").text
    said += "".join(str(one.detail) for one in session.scalars(select(AuditRecord)))
    for secret in (ours.secret, rotated):
        assert secret not in stored + said + client.get(BASE).text
        assert secret.removeprefix("whsec_") not in stored + said
        assert secret.removeprefix("whsec_").encode().hex() not in stored
    assert "/hook?of=ours" not in said
    assert "delivery.failed" in said


def test_a_secret_decrypts_in_no_other_row(session, subscribe, receiver, context, delete, send):
    factories.make_workspace(session)
    session.commit()
    ours, other = subscribe(receiver.url), subscribe(receiver.url)
    rows = [session.get_one(Subscription, one.id) for one in (ours, other)]
    rows[0].secret = rows[1].secret
    session.commit()
    delete("ml-team")

    assert "cannot be decrypted" in send(ours)
    assert send(other) == "1 sent"

    assert len(receiver.received) == 1


def test_a_worker_without_keys_says_so_and_tries_again(session, subscribe, receiver, context, delete, send):
    factories.make_workspace(session)
    session.commit()
    ours = subscribe(receiver.url)
    delete("ml-team")

    assert "WORKSPACES_SECRETS_KEY_FILE" in send(ours, of=with_settings(context, secrets_key_file=""))
    age_everything(session, 60)
    assert send(ours) == "1 sent"


def test_the_types_of_the_documentation_are_all(client):
    described = client.get("/openapi.json").json["components"]["schemas"]["NotificationType"]["enum"]

    assert described == [one.value for one in NotificationType]
