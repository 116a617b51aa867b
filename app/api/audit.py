"""The audit log over HTTP: it can be read, and nothing else."""

from typing import Any
from uuid import UUID

from flask import request
from pydantic import Field
from sqlalchemy import select, true

from app.access.permissions import Permission
from app.api.endpoint import Call, Routes
from app.api.filters import Fields, parse_filter, parse_sort
from app.api.paging import ListQuery, Page, paginate
from app.api.shapes import Moment, Shown
from app.errors import BadRequest
from app.models import AuditRecord

routes = Routes("audit")

FIELDS = Fields(
    key=AuditRecord.id,
    columns={
        "at": AuditRecord.at,
        "event": AuditRecord.event,
        "actor": AuditRecord.actor,
        "email": AuditRecord.email,
        "service": AuditRecord.service,
        "address": AuditRecord.address,
        "request_id": AuditRecord.request_id,
        "workspace_id": AuditRecord.workspace_id,
        "workspace_name": AuditRecord.workspace_name,
        "subject": AuditRecord.subject,
    },
)
SORT_FIELDS = Fields(key=AuditRecord.id, columns={"at": AuditRecord.at})


class AuditShown(Shown):
    """One thing that somebody did; `service` if one acted in the actor's name.

    Of `subject`: the member, the deletion, or the resource that was given up.
    """

    id: UUID
    at: Moment
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
    returns=Page[AuditShown],
    raises=(BadRequest,),
)
def list_audit_records(call: Call, query: AuditQuery) -> Page[AuditShown]:
    """Read who did what to workspaces, members and deletions, the newest first.

    Records outlive the workspaces they are about. For platform administrators.
    """
    wanted = parse_filter(request.args)
    statement = (
        select(AuditRecord)
        .where(wanted.compile(FIELDS) if wanted else true())
        .order_by(*parse_sort(query.sort, SORT_FIELDS, "-at"))
    )
    return paginate(
        call.session,
        statement,
        page=query.page,
        page_size=query.page_size,
        sort=query.sort,
        filter=wanted,
        item=AuditShown.model_validate,
    )
