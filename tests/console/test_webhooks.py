"""The page of who is notified, and of what became of each notification."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.lifecycle import DeliveryStatus
from app.models import Delivery, Subscription
from tests.support.aging import time_of
from tests.support.browser import Browser


@pytest.fixture
def webhook(session: Session) -> Subscription:
    """One that is enabled, with a delivery of each status."""
    now = time_of(session)
    webhook = Subscription(
        id=uuid4(), url="https://hooks.example/a<b>", types=["deletion.failed"], created_by="", updated_by=""
    )
    session.add(webhook)
    for number, status in enumerate(DeliveryStatus):
        session.add(
            Delivery(
                subscription_id=webhook.id,
                type="deletion.failed",
                status=status,
                created_at=now - timedelta(minutes=number),
                due_at=now,
                next_attempt_at=now + timedelta(hours=3, minutes=30),
                attempts=3,
                answer_code=500 if status is DeliveryStatus.PENDING else None,
                error="it answers 500" if status is DeliveryStatus.PENDING else None,
            )
        )
    session.commit()
    return webhook


def test_it_says_what_was_answered_and_when_the_next_try_comes(
    session: Session, operator: Browser, webhook: Subscription
) -> None:
    assert "https://hooks.example/a&lt;b&gt;" in operator.open("/console/webhooks").text

    text = operator.open(f"/console/webhooks/{webhook.id}").text
    title = text.partition("<title>")[2].partition("</title>")[0]
    assert "hooks.example" not in title, "it would stay in the history of the browser"

    assert "500 it answers 500" in text
    assert "in 3 h" in text
    assert text.count("<button>Redeliver</button>") == 2, "what is pending is sent anyway"
    only = operator.open(f"/console/webhooks/{webhook.id}?status=GIVEN_UP").text
    assert only.count("<button>Redeliver</button>") == 1


def test_one_is_sent_again(session: Session, operator: Browser, webhook: Subscription) -> None:
    given_up = session.scalars(select(Delivery).where(Delivery.status == DeliveryStatus.GIVEN_UP)).one()
    operator.open(f"/console/webhooks/{webhook.id}")

    operator.send(operator.form(f"/{given_up.id}/redeliver"))

    assert operator.message == "done: It is sent again, with the same id."
    session.refresh(given_up)
    assert (given_up.status, given_up.attempts) == (DeliveryStatus.PENDING, 0)


def test_a_test_is_sent_and_one_that_is_disabled_gets_none(
    session: Session, operator: Browser, webhook: Subscription
) -> None:
    operator.open(f"/console/webhooks/{webhook.id}")
    test = operator.form("/test")
    operator.send(test)
    assert operator.message == "done: A test is on its way."
    assert session.scalars(select(Delivery).where(Delivery.type == "notification.test")).one()

    operator.send(operator.form("/enabled"))
    assert operator.message == "done: It is disabled: nothing more is sent."
    operator.send(test)
    assert operator.message.startswith("refused: ")

    operator.send(operator.form("/enabled"))
    assert operator.message == "done: It is enabled: what is left is sent."


def test_one_that_the_product_has_disabled_can_be_left_so(
    session: Session, operator: Browser, webhook: Subscription
) -> None:
    webhook.is_enabled, webhook.disabled_reason = False, "the receiver says that it is gone for good (410)"
    session.commit()
    assert "gone for good (410)" in operator.open(f"/console/webhooks/{webhook.id}").text

    operator.send(operator.form("/enabled", "Leave it disabled, and end the alert"))

    assert operator.message == "done: It is disabled: nothing more is sent."
    session.refresh(webhook)
    assert (webhook.is_enabled, webhook.disabled_reason) == (False, None)
    assert "Leave it disabled" not in operator.page.text


def test_what_is_not_there_is_a_page(session: Session, operator: Browser) -> None:
    for webhook_id in ("no-id", uuid4()):
        assert operator.open(f"/console/webhooks/{webhook_id}").status_code == 404
