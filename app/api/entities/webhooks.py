"""Webhooks over HTTP: subscriptions to notifications, also those by e-mail, and their deliveries."""

from typing import Annotated, Any, Self
from uuid import UUID

from flask import Response
from pydantic import AfterValidator, Field, model_validator
from sqlalchemy import select

from app import models as rows
from app.access.listed import Listed
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest, Conflict, NotFound, SecretsDisabled, WrongState
from app.filters.fields import Fields
from app.http.field_types import Deleted, Resource, ShortText
from app.http.paging import KeysetPage, KeysetQuery, ListQuery, Page, list_page
from app.http.route import Body, RequestContext, Routes
from app.http.transfers.row_stream import resources
from app.lifecycle import DeliveryStatus, NotificationType
from app.notifications import deliveries, subscriptions
from app.notifications.receivers import LONGEST

routes = Routes("webhooks")
BASE = "/apis/entities/v2/webhooks"
ONE = f"{BASE}/<webhook_id>"


def _subscribed(types: list[NotificationType]) -> list[NotificationType]:
    if NotificationType.TEST in types:
        raise ValueError("notification.test is sent to whom it is asked for, and cannot be subscribed to")
    return list(dict.fromkeys(types))


Types = Annotated[
    list[NotificationType],
    Field(min_length=1, max_length=20, description="What it is notified of."),
    AfterValidator(_subscribed),
]
Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST,
        description="`https://…`, or `mailto:` and one address. It may be a secret: no log has it.",
    ),
]


class WebhookCreate(Body):
    """A webhook, or an e-mail, to subscribe. By default it is notified of everything."""

    url: Url
    types: Types = Field(default_factory=lambda: list(subscriptions.TYPES))
    description: ShortText = ""


class WebhookUpdate(Body):
    """A change of a webhook. What is null or missing stays as it is."""

    url: Url | None = None
    types: Types | None = None
    description: ShortText | None = None
    is_enabled: bool | None = Field(
        None, description="Enabled again, it is sent all that is left, and has the full time for it."
    )

    @model_validator(mode="after")
    def _say_something(self) -> Self:
        if all(value is None for value in dict(self).values()):
            raise ValueError("one of url, types, description and is_enabled is required")
        return self


class Webhook(Resource):
    """A subscription to notifications, without its secret."""

    id: UUID
    url: str
    types: list[str]
    description: str
    is_enabled: bool
    disabled_reason: str | None = Field(description="Why the product has disabled it; null if somebody has.")
    failures: int = Field(description="Attempts since the last one that succeeded.")
    next_attempt_at: Timestamp = Field(description="Nothing is sent before.")
    last_success_at: Timestamp | None
    older_secret_until: Timestamp | None = Field(description="Until when the secret before signs, too.")
    created_at: Timestamp
    created_by: str
    updated_at: Timestamp
    updated_by: str


class IssuedWebhook(Webhook):
    """A webhook with its secret, which is in this answer alone."""

    secret: str | None = Field(description="By which receivers verify signatures; null for e-mail.")


class WebhookDelivery(Resource):
    """The sending of one notification. Its id, as `msg_` and 32 hexadecimal digits, is its header `webhook-id`."""

    id: UUID
    type: str
    status: DeliveryStatus
    created_at: Timestamp
    attempts: int = Field(description="Since it was created, or last asked for again.")
    last_attempt_at: Timestamp | None
    next_attempt_at: Timestamp = Field(description="Means nothing unless it is PENDING.")
    answer_code: int | None = Field(description="Of the last attempt; null if nobody answered.")
    error: str | None = Field(description="Why the last attempt failed.")


FIELDS = Fields(
    key=rows.Subscription.id,
    columns={
        "created_at": rows.Subscription.created_at,
        "is_enabled": rows.Subscription.is_enabled,
    },
)
DELIVERY_FIELDS = Fields(
    key=rows.Delivery.id,
    columns={
        "created_at": rows.Delivery.created_at,
        "status": rows.Delivery.status,
        "type": rows.Delivery.type,
    },
)
DELIVERY_SORT_FIELDS = Fields(key=rows.Delivery.id, columns={"created_at": rows.Delivery.created_at})
ITEMS = resources(Webhook, rows.Subscription)
DELIVERY_ITEMS = resources(WebhookDelivery, rows.Delivery)


class DeliveriesQuery(KeysetQuery):
    """A page of deliveries."""

    sort: str = Field("-created_at", description="`created_at` or `-created_at`.")


@routes.add("GET", BASE, permission=Permission.WEBHOOKS_READ, returns=Page[Webhook], raises=(BadRequest,))
def list_webhooks(call: RequestContext, query: ListQuery) -> Response:
    """List the webhooks, newest first. For platform administrators."""
    found = Listed.for_administrators(call.actor, select(rows.Subscription))
    return list_page(call, query, found, FIELDS, items=ITEMS)


@routes.add(
    "POST",
    BASE,
    permission=Permission.WEBHOOKS_WRITE,
    status=201,
    returns=IssuedWebhook,
    raises=(BadRequest, Conflict, SecretsDisabled),
)
def create_webhook(call: RequestContext, body: WebhookCreate) -> IssuedWebhook:
    """Subscribe a URL, or an address of e-mail, to notifications about deletions.

    The answer has the `secret` by which its receiver verifies what it gets; no other answer has it.
    """
    created, secret = subscriptions.create_subscription(
        call.session, call.context, call.actor, url=body.url, types=body.types, description=body.description
    )
    return IssuedWebhook.from_row(created, secret=secret)


@routes.add("GET", ONE, permission=Permission.WEBHOOKS_READ, returns=Webhook, raises=(NotFound,))
def get_webhook(call: RequestContext, webhook_id: str) -> Webhook:
    """Get a webhook."""
    return Webhook.from_row(subscriptions.find_subscription(call.session, _key(webhook_id)))


@routes.add(
    "PATCH",
    ONE,
    permission=Permission.WEBHOOKS_WRITE,
    returns=Webhook,
    raises=(BadRequest, NotFound, Conflict),
)
def update_webhook(call: RequestContext, webhook_id: str, body: WebhookUpdate) -> Webhook:
    """Change a webhook: its URL, its types, or whether it is enabled. Its receiver is tried at once."""
    change = subscriptions.SubscriptionChange(**dict(body))
    return Webhook.from_row(
        subscriptions.update_subscription(call.session, call.context, call.actor, _key(webhook_id), change)
    )


@routes.add("DELETE", ONE, permission=Permission.WEBHOOKS_WRITE, returns=Deleted, raises=(NotFound,))
def delete_webhook(call: RequestContext, webhook_id: str) -> Deleted:
    """Delete a webhook, with the record of its deliveries. Nothing more is sent to it."""
    subscriptions.delete_subscription(call.session, call.actor, _key(webhook_id))
    return Deleted(message="Webhook deleted", id=webhook_id)


@routes.add(
    "POST",
    f"{ONE}/rotate-secret",
    permission=Permission.WEBHOOKS_WRITE,
    returns=IssuedWebhook,
    raises=(NotFound, WrongState, SecretsDisabled),
)
def rotate_webhook_secret(call: RequestContext, webhook_id: str) -> IssuedWebhook:
    """Give a webhook another secret. For a day the one before signs, too, so that its receiver can learn the new one.

    A second rotation within the day ends the first of the three.
    """
    rotated, secret = subscriptions.rotate_secret(call.session, call.context, call.actor, _key(webhook_id))
    return IssuedWebhook.from_row(rotated, secret=secret)


@routes.add(
    "POST",
    f"{ONE}/test",
    permission=Permission.WEBHOOKS_WRITE,
    status=202,
    returns=WebhookDelivery,
    raises=(NotFound, WrongState),
)
def test_webhook(call: RequestContext, webhook_id: str) -> WebhookDelivery:
    """Send a test to a webhook, whatever its types. Its deliveries say what became of it."""
    return WebhookDelivery.from_row(
        deliveries.send_test(call.session, call.context, call.actor, _key(webhook_id))
    )


@routes.add(
    "GET",
    f"{ONE}/deliveries",
    permission=Permission.WEBHOOKS_READ,
    returns=KeysetPage[WebhookDelivery],
    raises=(BadRequest, NotFound),
)
def list_webhook_deliveries(call: RequestContext, webhook_id: str, query: DeliveriesQuery) -> Response:
    """List what was sent to a webhook and what is on its way, newest first. Old ones are removed."""
    subscriptions.find_subscription(call.session, _key(webhook_id))
    found = Listed.for_administrators(call.actor, deliveries.deliveries_of(_key(webhook_id)))
    return list_page(
        call,
        query,
        found,
        DELIVERY_FIELDS,
        items=DELIVERY_ITEMS,
        sort_fields=DELIVERY_SORT_FIELDS,
        envelope=KeysetPage[Any],
    )


@routes.add(
    "POST",
    f"{ONE}/deliveries/<delivery_id>/redeliver",
    permission=Permission.WEBHOOKS_WRITE,
    status=202,
    returns=WebhookDelivery,
    raises=(NotFound, WrongState),
)
def redeliver(call: RequestContext, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Send a notification again, with the same `webhook-id`, whatever became of it."""
    return WebhookDelivery.from_row(
        deliveries.redeliver(call.session, call.context, call.actor, _key(webhook_id), _key(delivery_id))
    )


def _key(text: str) -> UUID:
    """The id of a path. Raises NotFound for what is none."""
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"'{text}' is no id of a webhook, nor of a delivery.") from None
