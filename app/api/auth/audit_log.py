"""The audit log over HTTP, read-only."""

from typing import Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import select

from app import models as rows
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest
from app.filters.fields import Fields
from app.http.field_types import Resource
from app.http.paging import ListQuery, Page, list_page
from app.http.route import RequestContext, Routes

routes = Routes("audit")

FIELDS = Fields(
    key=rows.AuditRecord.id,
    columns={
        "at": rows.AuditRecord.at,
        "event": rows.AuditRecord.event,
        "actor": rows.AuditRecord.actor,
        "email": rows.AuditRecord.email,
        "service": rows.AuditRecord.service,
        "address": rows.AuditRecord.address,
        "request_id": rows.AuditRecord.request_id,
        "workspace_id": rows.AuditRecord.workspace_id,
        "workspace_name": rows.AuditRecord.workspace_name,
        "subject": rows.AuditRecord.subject,
    },
)
SORT_FIELDS = Fields(key=rows.AuditRecord.id, columns={"at": rows.AuditRecord.at})


class AuditRecord(Resource):
    """One recorded action. `service` is set if a service acted in the actor's name.

    `subject` is the member, the deletion, or the resource that was given up.
    """

    id: UUID
    at: Timestamp
    event: str
    actor: str
    email: str
    service: str
    address: str
    request_id: str
    workspace_id: UUID | None
    workspace_name: str | None
    subject: str | None
    detail: dict[str, Any]


class AuditQuery(ListQuery):
    """A page of the log."""

    sort: str = Field("-at", description="`at` or `-at`.")


@routes.add(
    "GET",
    "/apis/auth/v2/audit",
    permission=Permission.AUDIT_READ,
    returns=Page[AuditRecord],
    raises=(BadRequest,),
)
def list_audit_records(call: RequestContext, query: AuditQuery) -> Page[AuditRecord]:
    """List the recorded actions on workspaces, members and deletions, newest first.

    Records outlive their workspaces. For platform administrators.
    """
    statement = select(rows.AuditRecord)
    return list_page(call, query, statement, FIELDS, item=AuditRecord.from_row, sort_fields=SORT_FIELDS)
