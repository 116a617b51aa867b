"""A change of a subscription holds for the worker that is sending to it."""

import pytest

from app.db import session_scope
from app.lease import LeaseLost
from app.lifecycle import DeliveryStatus
from app.notifications import subscriptions
from tests import factories
from tests.notifications.conftest import ROOT, deliveries, notified, the
from tests.notifications.receiver import receiving


@pytest.fixture
def ours(session, receiver, subscribe, delete):
    """A subscription with two deliveries that are due."""
    for name in ("one", "two"):
        factories.make_workspace(session, name)
    session.commit()
    made = subscribe(receiver.url)
    for name in ("one", "two"):
        delete(name)
    return made


@pytest.fixture
def change(context, ours):
    def change(**to):
        with session_scope(context.sessions) as session:
            subscriptions.update_subscription(
                session, context, ROOT, ours.id, subscriptions.SubscriptionChange(**to)
            )

    return change


def once(receiver, act):
    """Let `act` happen while the receiver has its first request."""

    def meanwhile():
        receiver.meanwhile = lambda: None
        act()

    receiver.meanwhile = meanwhile


def test_another_url_gets_what_was_not_recorded(session, publisher, receiver, ours, change, send):
    with receiving() as newer:
        once(receiver, lambda: change(url=newer.url))
        publisher.published.clear()
        with pytest.raises(LeaseLost):
            send(ours)

        assert len(receiver.received) == 1
        assert {one.status for one in deliveries(session)} == {DeliveryStatus.PENDING}
        assert notified(publisher) == [str(ours.id)]
        assert send(ours) == "2 sent"

        assert len(newer.documents(ours.secret)) == 2
    assert len(receiver.received) == 1


def test_an_older_url_that_is_gone_disables_no_other(session, receiver, ours, change, send):
    receiver.status = 410
    with receiving() as newer:
        once(receiver, lambda: change(url=newer.url))
        with pytest.raises(LeaseLost):
            send(ours)

        assert the(session, ours).is_enabled
        assert send(ours) == "2 sent"


def test_one_that_is_disabled_gets_no_more(session, publisher, receiver, ours, change, send):
    once(receiver, lambda: change(is_enabled=False))
    publisher.published.clear()
    with pytest.raises(LeaseLost):
        send(ours)

    assert len(receiver.received) == 1
    assert {one.status for one in deliveries(session)} == {DeliveryStatus.PENDING}
    assert notified(publisher) == []
    change(is_enabled=True)
    assert send(ours) == "2 sent"


def test_another_secret_signs_what_comes_next(context, publisher, receiver, ours, send):
    secrets = []

    def rotate():
        with session_scope(context.sessions) as session:
            secrets.append(subscriptions.rotate_secret(session, context, ROOT, ours.id)[1])

    once(receiver, rotate)
    publisher.published.clear()
    with pytest.raises(LeaseLost):
        send(ours)
    assert notified(publisher) == [str(ours.id)]
    assert send(ours) == "2 sent"

    assert [one.verified_by(secrets[0])["type"] for one in receiver.received[1:]] == [
        "deletion.requested"
    ] * 2


def test_other_changes_leave_the_worker_alone(receiver, ours, change, send):
    once(receiver, lambda: change(description="the operators' channel", url=receiver.url, is_enabled=True))

    assert send(ours) == "2 sent"

    assert len(receiver.received) == 2
