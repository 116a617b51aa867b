"""The audit log: who did what."""

from enum import StrEnum
from uuid import UUID

from sqlalchemy import Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.models.columns import Id, Json, Now, String


class AuditEvent(StrEnum):
    """The recorded actions on workspaces, members, secrets, deletions, hosts, access keys and webhooks."""

    WORKSPACE_CREATED = "workspace.created"
    WORKSPACE_UPDATED = "workspace.updated"
    WORKSPACE_PROTECTED = "workspace.protected"
    WORKSPACE_UNPROTECTED = "workspace.unprotected"
    WORKSPACE_RESTORED = "workspace.restored"
    MEMBER_GRANTED = "member.granted"
    MEMBER_REVOKED = "member.revoked"
    SECRET_CREATED = "secret.created"  # noqa: S105 -- an event
    SECRET_UPDATED = "secret.updated"  # noqa: S105 -- an event
    SECRET_DELETED = "secret.deleted"  # noqa: S105 -- an event
    SECRETS_ROTATED = "secrets.rotated"
    DELETION_REQUESTED = "deletion.requested"
    DELETION_RETRIED = "deletion.retried"
    DELETION_SKIPPED = "deletion.skipped"
    DELETION_FORCED = "deletion.forced"
    DELETIONS_HELD = "deletions.held"
    DELETIONS_RELEASED = "deletions.released"
    DESTRUCTION_PAUSED = "destruction.paused"
    DESTRUCTION_RESUMED = "destruction.resumed"
    HOST_PURGED = "host.purged"
    ACCESS_KEY_CREATED = "access_key.created"
    ACCESS_KEY_SUSPENDED = "access_key.suspended"
    ACCESS_KEY_UNSUSPENDED = "access_key.unsuspended"
    ACCESS_KEY_REVOKED = "access_key.revoked"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_UPDATED = "webhook.updated"
    WEBHOOK_DELETED = "webhook.deleted"
    WEBHOOK_SECRET_ROTATED = "webhook.secret_rotated"  # noqa: S105 -- an event
    WEBHOOK_TESTED = "webhook.tested"
    WEBHOOK_REDELIVERED = "webhook.redelivered"
    WEBHOOK_DISABLED = "webhook.disabled"
    RECORDS_PRUNED = "records.pruned"
    PRINCIPAL_FORGOTTEN = "principal.forgotten"


class AuditRecord(Base):
    """One recorded action. The database refuses to change or remove it, but for its retention and who is forgotten.

    It has no foreign keys, because it outlives the rows it is about.
    """

    __tablename__ = "audit_records"
    __table_args__ = (
        Index("ix_audit_records_workspace_id", "workspace_id"),
        Index("ix_audit_records_workspace_name", "workspace_name"),
        Index("ix_audit_records_actor", "actor"),
        Index("ix_audit_records_folded_actor", text('lower(actor COLLATE "C")')),
        Index("ix_audit_records_at", "at"),
        Index("ix_audit_records_event", "event", "at"),
        Index("ix_audit_records_subject", "subject"),
        Index("ix_audit_records_email", "email"),
        Index("ix_audit_records_folded_email", text('lower(email COLLATE "C")')),
        Index("ix_audit_records_request_id", "request_id"),
    )

    id: Mapped[Id]
    at: Mapped[Now]
    event: Mapped[String]
    actor: Mapped[String]
    """The principal's id; one with the prefix `service:` if the product itself acted."""
    email: Mapped[str] = mapped_column(Text, default="")
    """The principal's email, from the token or the gateway: some ids mean nothing to a person."""
    service: Mapped[str] = mapped_column(Text, default="")
    """The service that acted on behalf of the principal; empty without one."""
    address: Mapped[str] = mapped_column(Text, default="")
    request_id: Mapped[str] = mapped_column(Text, default="")
    workspace_id: Mapped[UUID | None]
    workspace_name: Mapped[str | None] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text)
    """The object of the action within the workspace: a member, a deletion or a skipped resource."""
    detail: Mapped[Json]
