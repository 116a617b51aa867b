"""Who is notified of deletions, what became of each notification, and sending one again."""

from uuid import UUID

from flask import Response
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.access.permissions import Permission
from app.console.page import Before, Fields, PageRequest, Pages
from app.errors import NotFound
from app.lifecycle import DeliveryStatus
from app.models import Delivery, Subscription
from app.notifications.deliveries import deliveries_of, redeliver, send_test
from app.notifications.subscriptions import (
    MOST,
    SubscriptionChange,
    find_subscription,
    update_subscription,
)

pages = Pages()
_ONE = "/webhooks/<webhook_id>"
_BACK = "/console/webhooks/{webhook_id}"
SHOWN = 50


class Asked(Before):
    """Which deliveries, and behind which one the page begins."""

    status: DeliveryStatus | None = None


class Enabled(Fields):
    """Whether anything is to be sent."""

    enabled: bool


@pages.add("GET", "/webhooks", permission=Permission.WEBHOOKS_READ)
def list_webhooks(call: PageRequest) -> Response:
    """Every subscription; there is a most of them."""
    newest = select(Subscription).order_by(Subscription.created_at.desc(), Subscription.id).limit(MOST)
    return call.page("webhooks.html", webhooks=call.read(lambda session: list(session.scalars(newest))))


@pages.add("GET", _ONE, permission=Permission.WEBHOOKS_READ)
def show_webhook(call: PageRequest, webhook_id: str, query: Asked) -> Response:
    """One of them, with what was sent to it, newest first."""

    def find(session: Session) -> tuple[Subscription, list[Delivery]]:
        subscription = find_subscription(session, _id(webhook_id))
        return subscription, list(session.scalars(_page(subscription, query)))

    subscription, found = call.read(find)
    last = found[SHOWN - 1] if len(found) > SHOWN else None
    return call.page(
        "webhook.html",
        one=subscription,
        deliveries=found[:SHOWN],
        asked=query,
        last=last,
        states=list(DeliveryStatus),
    )


@pages.add("POST", f"{_ONE}/test", permission=Permission.WEBHOOKS_WRITE, back=_BACK)
def test_webhook(call: PageRequest, webhook_id: str) -> Response:
    """Send it a test."""
    call.transact(lambda session: send_test(session, call.context, call.actor, _id(webhook_id)).id)
    return call.went("A test is on its way.", _BACK.format(webhook_id=webhook_id))


@pages.add("POST", f"{_ONE}/enabled", permission=Permission.WEBHOOKS_WRITE, back=_BACK)
def enable_webhook(call: PageRequest, webhook_id: str, form: Enabled) -> Response:
    """Send it everything again, or nothing any more."""
    change = SubscriptionChange(is_enabled=form.enabled)
    call.transact(
        lambda session: update_subscription(session, call.context, call.actor, _id(webhook_id), change).id
    )
    text = "It is enabled: what is left is sent." if form.enabled else "It is disabled: nothing more is sent."
    return call.went(text, _BACK.format(webhook_id=webhook_id))


@pages.add(
    "POST", f"{_ONE}/deliveries/<delivery_id>/redeliver", permission=Permission.WEBHOOKS_WRITE, back=_BACK
)
def redeliver_one(call: PageRequest, webhook_id: str, delivery_id: str) -> Response:
    """Send one notification again, with the same id."""
    call.transact(
        lambda session: (
            redeliver(session, call.context, call.actor, _id(webhook_id), _id(delivery_id, "delivery")).id
        )
    )
    return call.went("It is sent again, with the same id.", _BACK.format(webhook_id=webhook_id))


def _page(subscription: Subscription, asked: Asked) -> Select[Delivery]:
    rows = deliveries_of(subscription.id)
    if asked.status:
        rows = rows.where(Delivery.status == asked.status)
    rows = rows.where(asked.behind(Delivery.created_at, Delivery.id))
    return rows.order_by(Delivery.created_at.desc(), Delivery.id.desc()).limit(SHOWN + 1)


def _id(text: str, what: str = "webhook") -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"There is no {what} '{text[:100]}'.") from None
