"""What is sent: a document for programs, and a text for people. Both are made anew of the event for each attempt.

They are thin: who needs more follows the link, as somebody who may.
"""

from dataclasses import dataclass
from datetime import UTC
from email.message import EmailMessage
from uuid import UUID

from pydantic import BaseModel

from app.clock import Timestamp
from app.config import Settings
from app.lifecycle import DeletionState, NotificationType
from app.models import Deletion, DeletionEvent, Delivery

_LONGEST_REASON = 2000

_STATES = {
    NotificationType.DELETION_REQUESTED: DeletionState.DELETING,
    NotificationType.DELETION_STARTED: DeletionState.DELETING,
    NotificationType.DELETION_PAUSED: DeletionState.DELETING,
    NotificationType.DELETION_FAILED: DeletionState.FAILED,
    NotificationType.DELETION_FINISHED: DeletionState.DONE,
    NotificationType.DELETION_RESTORED: DeletionState.RESTORED,
}
"""The state of a deletion just after the event; it may be in another by now."""

_IN_WORDS = {
    NotificationType.DELETION_REQUESTED: "its deletion was requested, and nobody can access it any more",
    NotificationType.DELETION_STARTED: "its destruction has begun, and it cannot be restored any more",
    NotificationType.DELETION_PAUSED: "its deletion is held by the breaker, with all others of its requester",
    NotificationType.DELETION_FAILED: "its deletion has FAILED, and an administrator must look",
    NotificationType.DELETION_FINISHED: "it is gone",
    NotificationType.DELETION_RESTORED: "its deletion was called off, and it is as before",
}


class DeletionData(BaseModel):
    """The deletion that a notification is about, as it was at the time of the notification."""

    deletion_id: UUID
    workspace_id: UUID
    workspace_name: str
    state: DeletionState
    reason: str | None
    """Why it failed, or is held."""
    request_reason: str | None
    requested_by: str
    link: str


class SubscriptionData(BaseModel):
    """That of a test: which subscription is tried."""

    subscription_id: UUID


class Notification(BaseModel):
    """A notification, as receivers get it."""

    type: NotificationType
    timestamp: Timestamp
    data: DeletionData | SubscriptionData


@dataclass(frozen=True)
class About:
    """A delivery with what it is about; a test is about nothing."""

    delivery: Delivery
    event: DeletionEvent | None = None
    deletion: Deletion | None = None


def notification(settings: Settings, about: About) -> Notification | None:
    """What a receiver gets; None if there is no record of the deletion any more."""
    delivery = about.delivery
    type_ = NotificationType(delivery.type)
    if type_ is NotificationType.TEST:
        data: DeletionData | SubscriptionData = SubscriptionData(subscription_id=delivery.subscription_id)
        return Notification(type=type_, timestamp=delivery.created_at, data=data)
    if about.event is None or about.deletion is None:
        return None
    deletion, at = about.deletion, about.event.at
    data = DeletionData(
        deletion_id=deletion.id,
        workspace_id=deletion.workspace_id,
        workspace_name=deletion.workspace_name,
        state=_STATES[type_],
        reason=_reason(type_, about.event),
        request_reason=deletion.request_reason,
        requested_by=deletion.requested_by,
        link=f"{settings.public_url}/console/deletions/{deletion.id}",
    )
    return Notification(type=type_, timestamp=at, data=data)


def _reason(type_: NotificationType, event: DeletionEvent) -> str | None:
    if type_ not in {NotificationType.DELETION_FAILED, NotificationType.DELETION_PAUSED}:
        return None
    return str(event.detail.get("reason", ""))[:_LONGEST_REASON] or None


def mail_of(settings: Settings, sent: Notification, delivery: Delivery, *, to: str) -> EmailMessage:
    """The same as an e-mail to that address."""
    message = EmailMessage()
    message["From"], message["To"] = settings.smtp_sender, to
    # The same for each attempt: a client that gets it twice shows it once.
    message["Message-ID"] = f"<{delivery.id}@{settings.smtp_sender.partition('@')[2]}>"
    message["Date"] = sent.timestamp.astimezone(UTC)
    message["Auto-Submitted"] = "auto-generated"
    if isinstance(sent.data, SubscriptionData):
        message["Subject"] = "Workspaces: test"
        message.set_content("This is a test of a subscription to notifications.\n")
        return message
    data = sent.data
    message["Subject"] = f"Workspace {data.workspace_name}: {sent.type.value}"
    lines = [
        f"Workspace {data.workspace_name} ({data.workspace_id}): {_IN_WORDS[sent.type]}.",
        "",
        f"At:            {sent.timestamp:%Y-%m-%d %H:%M:%S} UTC",
        f"State:         {data.state.value}",
        *([f"Reason:        {_one_line(data.reason)}"] if data.reason else []),
        f"Requested by:  {_one_line(data.requested_by)}",
        *([f"Because:       {_one_line(data.request_reason)}"] if data.request_reason else []),
        f"Deletion:      {data.link}",
    ]
    message.set_content("\n".join(lines) + "\n")
    return message


def _one_line(text: str) -> str:
    return " ".join(text.split())
