"""Sending what is due to one subscription, one delivery after another.

A worker that dies leaves its delivery as it was: it is sent again, with the same id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from sqlalchemy import select

from app import clock
from app.clock import database_now
from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.errors import DomainError
from app.models import Deletion, DeletionEvent, Delivery, Subscription
from app.notifications import ledger
from app.notifications.attempt import AttemptFailed
from app.notifications.content import About, Notification, mail_of, notification
from app.notifications.lease import Claim, claim, is_due, release
from app.notifications.ledger import Attempt
from app.notifications.mail import send_mail
from app.notifications.receivers import MAILTO
from app.notifications.signing import secrets_in_force, signed_headers
from app.notifications.webhook import post
from app.services.secrets.encryption import Keyring
from app.version import VERSION

_SLICE_S = 15.0
"""How long one task sends to one subscription before others have their turn."""

_AT_ONCE = 20
"""Deliveries of a subscription that are read at a time."""


@dataclass(frozen=True)
class _Due(Attempt):
    """An attempt with what it is about."""

    about: About


def send_due(context: Context, subscription_id: UUID, *, owner: str) -> str | None:
    """Send to a subscription what is due, for about `_SLICE_S`; what came of it, in words. None if there is nothing.

    Ends with the first attempt that fails. Commits after each. Enqueues another message if something is left that is
    due. Raises LeaseLost if another worker has taken over, or the subscription was changed or deleted.
    """
    claimed = claim(context, subscription_id, owner=owner)
    if claimed is None:
        return None
    end, sent, error = monotonic() + _SLICE_S, 0, None
    while error is None and monotonic() < end and (due := _next_due(context, subscription_id)):
        for attempt in due:
            error = _attempt(context, claimed, attempt)
            sent += not error
            if error or monotonic() >= end:
                break
    release(context, claimed)
    return f"{sent} sent" + (f"; then: {error}" if error else "")


def _next_due(context: Context, subscription_id: UUID) -> Sequence[_Due]:
    """The next deliveries, in the order in which they became due."""
    is_last = database_now() >= ledger.deadline(context.settings)
    query = (
        select(Delivery, is_last, DeletionEvent, Deletion)
        .join(Subscription, Subscription.id == Delivery.subscription_id)
        .outerjoin(DeletionEvent, DeletionEvent.id == Delivery.event_id)
        .outerjoin(Deletion, Deletion.id == DeletionEvent.deletion_id)
        .where(Delivery.subscription_id == subscription_id, Subscription.is_enabled, is_due())
        .order_by(Delivery.next_attempt_at, Delivery.created_at)
        .limit(_AT_ONCE)
    )
    with session_scope(context.sessions) as session:
        return [
            _Due(delivery, last, About(delivery, event, deletion))
            for delivery, last, event, deletion in session.execute(query)
        ]


def _attempt(context: Context, claimed: Claim, due: _Due) -> str | None:
    """Try a delivery, outside any transaction, and write down what became of it; why it failed, if it did."""
    sent = notification(context.settings, due.about)
    if sent is None:
        ledger.note_lost_record(context, claimed, due)
        return None
    try:
        code = _send(context.settings, claimed, sent, due.delivery)
    except AttemptFailed as failed:
        ledger.note_failed(context, claimed, due, failed)
        return str(failed)
    except DomainError as error:
        ledger.note_failed(context, claimed, due, AttemptFailed(error.message))
        return error.message
    ledger.note_delivered(context, claimed, due, code=code)
    return None


def _send(settings: Settings, claimed: Claim, sent: Notification, delivery: Delivery) -> int:
    """The code of the receiver's answer. Raises AttemptFailed, SecretsDisabled and SecretUnreadable."""
    subscription = claimed.subscription
    if subscription.url.startswith(MAILTO):
        to = subscription.url.removeprefix(MAILTO)
        return send_mail(settings, mail_of(settings, sent, delivery, to=to))
    keys = Keyring.read(settings)
    signing = secrets_in_force(keys, subscription, is_older_valid=claimed.is_older_secret_valid)
    body = sent.model_dump_json()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"workspaces/{VERSION}",
        **signed_headers(signing, delivery, body, at=clock.now()),
    }
    return post(settings, subscription.url, body.encode(), headers)
