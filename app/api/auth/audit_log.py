"""The audit log over HTTP, read-only."""

from typing import Any
from uuid import UUID

from flask import Response
from pydantic import Field
from sqlalchemy import select

from app import models as rows
from app.access.listed import Listed
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import BadRequest
from app.filters.fields import Fields
from app.http.field_types import Resource
from app.http.paging import KeysetPage, KeysetQuery, list_page
from app.http.route import RequestContext, Routes
from app.http.transfers.row_stream import resources

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


ITEMS = resources(AuditRecord, rows.AuditRecord)


class AuditQuery(KeysetQuery):
    """A page of the log."""

    sort: str = Field("-at", description="`at` or `-at`.")


@routes.add(
    "GET",
    "/apis/auth/v2/audit",
    permission=Permission.AUDIT_READ,
    returns=KeysetPage[AuditRecord],
    raises=(BadRequest,),
)
def list_audit_records(call: RequestContext, query: AuditQuery) -> Response:
    """List the recorded actions on workspaces, members and deletions, newest first.

    Records outlive their workspaces. For platform administrators.
    """
    found = Listed.for_administrators(call.actor, select(rows.AuditRecord))
    return list_page(
        call, query, found, FIELDS, items=ITEMS, sort_fields=SORT_FIELDS, envelope=KeysetPage[Any]
    )
