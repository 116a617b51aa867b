"""The order of locks: a subscription before its deliveries, for administrators as for the sender."""

import pytest
from sqlalchemy.orm import Session

from app.notifications import deliveries as service
from app.notifications import ledger, sending, subscriptions
from app.notifications.attempt import AttemptFailed
from app.notifications.lease import claim
from tests import factories
from tests.notifications.conftest import ROOT, deliveries, the
from tests.support.locks import has_to_wait, meanwhile


@pytest.mark.parametrize("is_last", [False, True])
def test_a_failed_attempt_and_a_redelivery_do_not_deadlock(
    session, context, database, receiver, subscribe, delete, is_last
):
    factories.make_workspace(session)
    session.commit()
    ours = subscribe(receiver.url)
    delete("ml-team")
    claimed = claim(context, ours.id, owner="sender")
    [due] = sending._next_due(context, ours.id)
    attempt = ledger.Attempt(due.delivery, is_last=is_last)

    def fail():
        ledger.note_failed(context, claimed, attempt, AttemptFailed("the receiver answers 503", code=503))

    with Session(database) as administrator:
        subscriptions.lock_subscription(administrator, ours.id)
        with meanwhile(fail) as failing:
            assert has_to_wait(database, failing)
            service.redeliver(administrator, context, ROOT, ours.id, due.delivery.id)
            administrator.commit()
        failing.result()

    [again] = deliveries(session)
    assert again.attempts == 0, "it was asked for again"
    assert the(session, ours).failures == 1
