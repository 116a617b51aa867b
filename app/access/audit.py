"""Appending to the audit log. No code changes or removes a record."""

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.access.authorize import Actor
from app.models import AuditRecord
from app.models.audit import AuditEvent


def record(
    session: Session,
    actor: Actor | str,
    event: AuditEvent,
    *,
    workspace: tuple[UUID, str] | None = None,
    subject: str | None = None,
    **detail: Any,
) -> None:
    """Append one record, in the transaction of the recorded action: neither is committed without the other.

    `workspace` is the pair of its id and name; `actor` is a name if no request caused the action. Details that
    are None are left out. Does not commit.
    """
    workspace_id, name = workspace or (None, None)
    origin = (
        {
            "actor": actor.id,
            "email": actor.principal.email,
            "service": actor.principal.service,
            "address": actor.address,
            "request_id": actor.request_id,
        }
        if isinstance(actor, Actor)
        else {"actor": actor}
    )
    session.add(
        AuditRecord(
            event=event,
            workspace_id=workspace_id,
            workspace_name=name,
            subject=subject,
            detail={key: value for key, value in detail.items() if value is not None},
            **origin,
        )
    )
