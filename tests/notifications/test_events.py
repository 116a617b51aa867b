"""Which events are notified of, and that their deliveries are written with them, or not at all."""

import pytest
from sqlalchemy import Engine, event, func, select

from app.cleanup import operations
from app.cleanup.history import record
from app.cleanup.requests import request_deletion
from app.db import session_scope
from app.lifecycle import NOTIFIED_EVENTS, DeliveryStatus, NotificationType
from app.models import Deletion, DeletionEvent
from tests import factories
from tests.notifications.conftest import ROOT, deliveries, notified, the
from tests.support.aging import age


def test_a_deletion_is_notified_of_from_its_request_to_its_end(
    session, publisher, receiver, subscribe, delete, finish, send
):
    workspace = factories.make_workspace(session)
    session.commit()
    ours = subscribe(receiver.url)

    deletion_id = delete("ml-team")
    finish(deletion_id)
    send(ours)

    documents = receiver.documents(ours.secret)
    assert [one["type"] for one in documents] == [
        "deletion.requested",
        "deletion.started",
        "deletion.finished",
    ]
    assert [one["data"]["state"] for one in documents] == ["DELETING", "DELETING", "DONE"]
    assert documents[0]["data"] == {
        "deletion_id": str(deletion_id),
        "workspace_id": str(workspace.id),
        "workspace_name": "ml-team",
        "state": "DELETING",
        "reason": None,
        "request_reason": None,
        "requested_by": "root",
        "link": f"/console/deletions/{deletion_id}",
    }
    assert set(documents[0]) == {"type", "timestamp", "data"}
    assert {one.status for one in deliveries(session)} == {DeliveryStatus.DELIVERED}
    assert set(notified(publisher)) == {str(ours.id)}


def test_a_restore_and_the_breaker_are_notified_of(session, context, receiver, subscribe, delete, send):
    names = [f"team-{number}" for number in range(5)]
    for name in names:
        age(session, factories.make_workspace(session, name), 86400)
    ours = subscribe(receiver.url, [NotificationType.DELETION_PAUSED, NotificationType.DELETION_RESTORED])

    asked = [delete(name) for name in names]
    with session_scope(context.sessions) as other:
        operations.restore(other, context, ROOT, other.get_one(Deletion, asked[0]))
    send(ours)

    paused, restored = receiver.documents(ours.secret)
    assert (paused["type"], paused["data"]["deletion_id"]) == ("deletion.paused", str(asked[4]))
    assert "workspaces were deleted within" in paused["data"]["reason"]
    assert (restored["type"], restored["data"]["state"]) == ("deletion.restored", "RESTORED")


@pytest.mark.parametrize("event_name", NOTIFIED_EVENTS)
def test_every_event_that_is_notified_of_has_deliveries_and_a_message(
    session, context, publisher, receiver, subscribe, delete, event_name
):
    factories.make_workspace(session)
    session.commit()
    deletion_id = delete("ml-team")
    ours = subscribe(receiver.url)

    with session_scope(context.sessions) as other:
        record(other, deletion_id, event_name, actor="somebody", reason="because")

    assert [one.type for one in deliveries(session, ours)] == [NOTIFIED_EVENTS[event_name]]


def test_every_type_but_the_test_is_that_of_an_event():
    assert {*NOTIFIED_EVENTS.values(), NotificationType.TEST} == set(NotificationType)


def test_other_events_and_other_types_have_none(session, context, receiver, subscribe, delete):
    factories.make_workspace(session)
    session.commit()
    subscribe(receiver.url, [NotificationType.DELETION_FAILED])

    deletion_id = delete("ml-team")
    with session_scope(context.sessions) as other:
        record(other, deletion_id, "retried", actor="somebody")

    assert deliveries(session) == []


def test_a_transaction_that_rolls_back_leaves_no_delivery_and_no_message(
    session, context, publisher, receiver, subscribe
):
    factories.make_workspace(session)
    session.commit()
    subscribe(receiver.url)

    with context.sessions() as other, other.begin() as transaction:
        request_deletion(other, context, ROOT, "ml-team")
        transaction.rollback()

    assert deliveries(session) == []
    assert session.scalar(select(func.count()).select_from(DeletionEvent)) == 0
    assert notified(publisher) == []


def test_an_event_keeps_its_place_among_those_of_its_transaction(session, context, delete):
    factories.make_workspace(session)
    session.commit()
    deletion_id = delete("ml-team")

    with session_scope(context.sessions) as other:
        record(other, deletion_id, "phase_finished", actor="w", kind="jobs")
        record(other, deletion_id, "finished", actor="w")
        record(other, deletion_id, "displaced", actor="w")

    events = session.scalars(
        select(DeletionEvent.event).where(DeletionEvent.deletion_id == deletion_id).order_by(DeletionEvent.id)
    ).all()
    assert events == ["requested", "phase_finished", "finished", "displaced"]


def test_nobody_subscribed_costs_no_statement_more(session, context, publisher, delete):
    """The event and its deliveries are one statement, and there is no message."""
    factories.make_workspace(session)
    session.commit()
    statements: list[str] = []

    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        delete("ml-team")
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    assert [one.count("INSERT INTO deletion_events") for one in statements if "deletion_events" in one] == [1]
    assert [one for one in statements if "subscriptions" in one and "deletion_events" not in one] == []
    assert notified(publisher) == []


def test_a_disabled_subscription_hears_of_nothing(session, context, receiver, subscribe, delete):
    factories.make_workspace(session)
    session.commit()
    ours = subscribe(receiver.url)
    the(session, ours).is_enabled = False
    session.commit()

    delete("ml-team")

    assert deliveries(session) == []
