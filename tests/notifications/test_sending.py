"""Sending: again until the receiver has it, with the same id, and to no receiver at the cost of another."""

import threading

import pytest
from sqlalchemy import func, select

from app.db import session_scope
from app.lease import LeaseLost
from app.lifecycle import DeliveryMove, DeliveryStatus, NotificationType
from app.maintenance.sweep import sweep
from app.models import AuditRecord, Delivery
from app.models.audit import AuditEvent
from app.notifications import deliveries as service
from app.notifications import sending, subscriptions
from app.notifications.lease import claim
from app.notifications.ledger import pause_after
from tests import factories
from tests.notifications.conftest import ROOT, deliveries, notified, the, with_settings
from tests.notifications.receiver import free_port, receiving
from tests.support.aging import age, age_everything
from tests.support.deadlines import DEADLINE_S

DAY_S = 86400


@pytest.fixture
def workspaces(session):
    for name in ("one", "two", "three"):
        factories.make_workspace(session, name)
    session.commit()


def test_a_receiver_that_was_away_gets_everything_once_it_is_back(
    session, context, publisher, subscribe, delete, send, workspaces
):
    port = free_port()
    ours = subscribe(f"http://127.0.0.1:{port}/")
    delete("one")
    assert "refuses connections" in send(ours)
    delete("two")
    delete("three")

    for _ in range(4):  # a day of outage: one attempt for each message, and none before its time
        assert send(ours) is None
        age_everything(session, DAY_S / 4)
        assert "refuses connections" in send(ours)
    with receiving(port) as back:
        age_everything(session, DAY_S / 4)
        publisher.published.clear()
        sweep(context)
        assert notified(publisher) == [str(ours.id)]
        assert send(ours) == "3 sent"

    names = {one["data"]["workspace_name"] for one in back.documents(ours.secret)}
    assert names == {"one", "two", "three"}
    assert {one.status for one in deliveries(session)} == {DeliveryStatus.DELIVERED}
    assert the(session, ours).failures == 0


def test_a_delivery_has_one_id_however_often_it_is_sent(
    session, receiver, subscribe, delete, send, workspaces
):
    ours = subscribe(receiver.url)
    receiver.status = 503
    delete("one")
    assert send(ours) == "0 sent; then: the receiver answers 503"
    age_everything(session, 60)
    receiver.status = 204
    send(ours)

    first, second = receiver.received
    assert first.message_id == second.message_id == f"msg_{deliveries(session)[0].id.hex}"
    assert first.body == second.body
    [sent] = deliveries(session)
    assert (sent.attempts, sent.answer_code, sent.error) == (2, 204, None)


def test_both_secrets_sign_for_a_day_after_a_rotation(
    session, context, receiver, subscribe, delete, send, workspaces
):
    ours = subscribe(receiver.url)
    with session_scope(context.sessions) as other:
        _, newer = subscriptions.rotate_secret(other, context, ROOT, ours.id)
    delete("one")
    send(ours)
    age(session, the(session, ours), DAY_S)
    delete("two")
    send(ours)

    during, after = receiver.received
    assert during.verified_by(newer) == during.verified_by(ours.secret)
    assert after.verified_by(newer)
    with pytest.raises(Exception, match="No matching signature"):
        after.verified_by(ours.secret)


def test_a_worker_that_dies_while_it_sends_leaves_its_delivery_to_the_next(
    session, context, publisher, receiver, subscribe, delete, send, workspaces
):
    """Dies after the receiver has got it, and before that is on record: it is sent twice, with the same id."""
    ours = subscribe(receiver.url)
    delete("one")
    claimed = claim(context, ours.id, owner="the late")
    [due] = sending._next_due(context, ours.id)
    sent = sending.notification(context.settings, due.about)
    sending._send(context.settings, claimed, sent, due.delivery)

    assert send(ours) is None, "the lease is its"
    sweep(context)
    assert notified(publisher)[1:] == []
    age_everything(session, context.settings.lease_seconds)
    sweep(context)
    assert len(notified(publisher)) == 2
    assert send(ours) == "1 sent"

    assert len({one.message_id for one in receiver.received}) == 1
    assert len(receiver.received) == 2
    with pytest.raises(LeaseLost):
        sending.ledger.note_failed(context, claimed, due, sending.AttemptFailed("too late"))
    assert [one.status for one in deliveries(session)] == [DeliveryStatus.DELIVERED]


def test_two_workers_do_not_send_the_same(session, context, receiver, subscribe, delete, send, workspaces):
    ours = subscribe(receiver.url)
    delete("one")
    began, go_on = threading.Event(), threading.Event()

    def meanwhile():
        began.set()
        assert go_on.wait(DEADLINE_S)

    receiver.meanwhile = meanwhile
    settled = with_settings(context, webhook_timeout_seconds=15)
    first = threading.Thread(target=lambda: send(ours, of=settled))
    first.start()
    try:
        assert began.wait(DEADLINE_S)
        receiver.meanwhile = lambda: None
        assert send(ours) is None
    finally:
        go_on.set()
        first.join()

    assert len(receiver.received) == 1


def test_what_comes_while_a_worker_ends_is_not_forgotten(
    session, context, publisher, receiver, subscribe, delete, send, workspaces
):
    """Its message finds the lease taken; the worker that has it enqueues another."""
    ours = subscribe(receiver.url)
    delete("one")
    ending = claim(context, ours.id, owner="about to end")
    delete("two")
    assert send(ours) is None
    publisher.published.clear()

    sending.release(context, ending)

    assert notified(publisher) == [str(ours.id)]


def test_a_dead_receiver_costs_another_nothing(
    session, publisher, receiver, subscribe, delete, send, workspaces
):
    dead, alive = subscribe(f"http://127.0.0.1:{free_port()}/"), subscribe(receiver.url)
    for name in ("one", "two", "three"):
        delete(name)

    send(dead)
    assert send(alive) == "3 sent"

    assert sum(one.attempts for one in deliveries(session, dead)) == 1, "not one for each that waits"


def test_one_that_is_refused_does_not_hold_up_the_others(
    session, receiver, subscribe, delete, send, workspaces
):
    ours = subscribe(receiver.url)
    for name in ("one", "two", "three"):
        delete(name)

    def refuse_one(request):
        status = 400 if b'"one"' in receiver.received[-1].body else 204
        request.send_response(status)
        request.end_headers()

    receiver.answer = refuse_one
    assert send(ours) == "0 sent; then: the receiver answers 400"
    age(session, the(session, ours), 6)
    assert send(ours) == "2 sent"

    assert [one.status for one in deliveries(session, ours)] == [
        DeliveryStatus.PENDING,
        DeliveryStatus.DELIVERED,
        DeliveryStatus.DELIVERED,
    ]


def test_what_nobody_takes_for_three_days_is_given_up_and_its_subscription_disabled(
    session, context, receiver, subscribe, delete, send, workspaces
):
    ours, other = subscribe(f"http://127.0.0.1:{free_port()}/"), subscribe(receiver.url)
    delete("one")
    send(ours)
    age_everything(session, 2.9 * DAY_S)
    send(ours)
    assert the(session, ours).is_enabled
    [pending] = deliveries(session, ours)
    left_s = session.scalar(
        select(func.extract("epoch", Delivery.next_attempt_at - func.statement_timestamp())).where(
            Delivery.id == pending.id
        )
    )
    assert left_s < 0.1 * DAY_S, "the last attempt is at the end"
    age_everything(session, 0.1 * DAY_S + 10)
    send(ours)
    delete("two")

    assert [one.status for one in deliveries(session, ours)] == [DeliveryStatus.GIVEN_UP]
    dead = the(session, ours)
    assert not dead.is_enabled
    assert dead.disabled_reason == "nothing was delivered for 3 days; the receiver refuses connections"
    events = session.scalars(select(AuditRecord.event).where(AuditRecord.subject == str(ours.id))).all()
    assert AuditEvent.WEBHOOK_DISABLED in events
    assert len(deliveries(session, other)) == 2, "the neighbour hears of both"


def test_one_that_is_never_taken_disables_no_receiver_that_takes_the_others(
    session, receiver, subscribe, delete, send, workspaces
):
    ours = subscribe(receiver.url)
    delete("one")
    receiver.status = 400
    send(ours)
    age_everything(session, 2.9 * DAY_S)
    delete("two")
    receiver.answer = lambda request: (
        request.send_response(400 if b'"one"' in receiver.received[-1].body else 204),
        request.end_headers(),
    )
    send(ours)
    age_everything(session, 0.1 * DAY_S + 10)
    send(ours)
    age_everything(session, 60)
    send(ours)

    assert [one.status for one in deliveries(session)] == [DeliveryStatus.GIVEN_UP, DeliveryStatus.DELIVERED]
    assert the(session, ours).is_enabled


def test_a_receiver_that_is_gone_for_good_is_disabled_at_once(
    session, receiver, subscribe, delete, send, workspaces
):
    ours = subscribe(receiver.url)
    delete("one")
    receiver.status = 410
    send(ours)

    assert not the(session, ours).is_enabled
    assert the(session, ours).disabled_reason == "the receiver says that it is gone for good (410)"


def test_a_subscription_that_is_enabled_again_is_sent_what_was_left(
    session, context, receiver, subscribe, delete, send, workspaces
):
    ours = subscribe(receiver.url)
    receiver.status = 503
    delete("one")
    delete("two")
    send(ours)
    age_everything(session, 4 * DAY_S)
    send(ours)
    assert not the(session, ours).is_enabled
    assert send(ours) is None

    receiver.status = 204
    with session_scope(context.sessions) as other:
        enabled = subscriptions.SubscriptionChange(is_enabled=True)
        subscriptions.update_subscription(other, context, ROOT, ours.id, enabled)
    assert send(ours) == "1 sent"

    assert the(session, ours).disabled_reason is None
    assert sorted(one.status for one in deliveries(session)) == [
        DeliveryStatus.DELIVERED,
        DeliveryStatus.GIVEN_UP,
    ]


def test_a_receiver_that_was_mended_need_not_be_waited_for(
    session, context, publisher, receiver, subscribe, delete, send, workspaces
):
    ours = subscribe(f"http://127.0.0.1:{free_port()}/")
    delete("one")
    send(ours)
    assert send(ours) is None
    publisher.published.clear()

    with session_scope(context.sessions) as other:
        mended = subscriptions.SubscriptionChange(url=receiver.url)
        subscriptions.update_subscription(other, context, ROOT, ours.id, mended)

    assert notified(publisher) == [str(ours.id)]
    assert send(ours) == "1 sent"


def test_what_was_given_up_can_be_sent_again(
    session, context, publisher, receiver, subscribe, delete, send, workspaces
):
    ours = subscribe(receiver.url)
    delete("one")
    send(ours)
    [sent] = deliveries(session)
    publisher.published.clear()

    with session_scope(context.sessions) as other:
        service.redeliver(other, context, ROOT, ours.id, sent.id)
    assert notified(publisher) == [str(ours.id)]
    send(ours)

    assert len({one.message_id for one in receiver.received}) == 1
    assert len(receiver.received) == 2
    assert [one.status for one in deliveries(session)] == [DeliveryStatus.DELIVERED]


def test_what_is_asked_for_again_while_it_is_sent_is_sent_once_more(
    session, context, receiver, subscribe, delete, send, workspaces
):
    ours = subscribe(receiver.url)
    delete("one")
    claim(context, ours.id, owner="w")
    [due] = sending._next_due(context, ours.id)
    with session_scope(context.sessions) as other:
        service.redeliver(other, context, ROOT, ours.id, due.delivery.id)

    with session_scope(context.sessions) as other:
        sending.ledger._note(other, due, DeliveryMove.DELIVER)

    assert [one.status for one in deliveries(session)] == [DeliveryStatus.PENDING]


def test_a_test_is_sent_whatever_the_types(session, context, receiver, subscribe, send):
    ours = subscribe(receiver.url, [NotificationType.DELETION_FAILED])
    with session_scope(context.sessions) as other:
        service.send_test(other, context, ROOT, ours.id)
    send(ours)

    [document] = receiver.documents(ours.secret)
    assert (document["type"], document["data"]) == ("notification.test", {"subscription_id": str(ours.id)})


def test_old_records_end_in_chunks_and_young_ones_stay(
    session, context, receiver, subscribe, delete, send, workspaces
):
    ours = subscribe(receiver.url)
    for name in ("one", "two"):
        delete(name)
    for one in deliveries(session):
        age(session, one, 31 * DAY_S)
    delete("three")
    chunks = with_settings(context, chunk_size=1)

    sweep(chunks)
    assert len(deliveries(session, ours)) == 2
    sweep(chunks)
    sweep(chunks)
    sweep(with_settings(context, notification_retention_days=0))

    [left] = deliveries(session, ours)
    assert left.created_at > the(session, ours).created_at


def test_a_subscription_that_is_deleted_while_it_is_sent_to_ends_the_attempt(
    session, context, receiver, subscribe, delete, send, workspaces
):
    ours = subscribe(receiver.url)
    delete("one")

    def remove():
        with session_scope(context.sessions) as other:
            subscriptions.delete_subscription(other, ROOT, ours.id)

    receiver.meanwhile = remove
    with pytest.raises(LeaseLost):
        send(ours)

    assert deliveries(session) == []


def test_pauses_grow_to_six_hours():
    assert 4.5 <= pause_after(0) <= 5.5
    assert 13.5 <= pause_after(1) <= 16.5
    assert 0.9 * 6 * 3600 <= pause_after(100) <= 1.1 * 6 * 3600
