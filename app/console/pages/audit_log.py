"""The audit log: who did what, to be searched and taken along."""

import csv
import io
import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Response
from pydantic import AwareDatetime, BeforeValidator, Field
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.access.authorize import permitted_platform_wide
from app.access.permissions import Permission
from app.console.page import Before, PageRequest, Pages
from app.http.field_types import ShortText
from app.models import AuditRecord
from app.models.audit import AuditEvent
from app.times import parse_time

pages = Pages()
SHOWN = 100
MOST_EXPORTED = 10_000
_COLUMNS = (
    "at",
    "event",
    "actor",
    "email",
    "service",
    "address",
    "request_id",
    "workspace_id",
    "workspace_name",
)
_LAST_COLUMNS = ("subject", "detail")


def _in_utc(value: Any) -> Any:
    """A time in UTC, which is what the page says and shows: a browser's field knows no zone."""
    if not isinstance(value, str):
        return value
    try:
        return parse_time(value, zone=UTC)
    except ValueError:
        raise ValueError("a time is given as 2026-03-01T12:00, in UTC") from None


TimeOfField = Annotated[AwareDatetime | None, BeforeValidator(_in_utc)]


class Asked(Before):
    """Which records, and behind which one the page begins."""

    event: AuditEvent | None = None
    actor: ShortText | None = None
    workspace: ShortText | None = None
    subject: ShortText | None = None
    since: TimeOfField = None
    until: TimeOfField = None


class Exported(Asked):
    """The same as a file."""

    format: Literal["csv", "json"] = Field("csv")


@pages.add("GET", "/audit", permission=Permission.AUDIT_READ, area="auth")
def list_records(call: PageRequest, query: Asked) -> Response:
    """A page of the log, newest first."""
    found = call.read(lambda session: _found(session, call, query, limit=SHOWN + 1))
    last = found[SHOWN - 1] if len(found) > SHOWN else None
    return call.page("audit.html", records=found[:SHOWN], asked=query, last=last, events=list(AuditEvent))


@pages.add("GET", "/audit/export", permission=Permission.AUDIT_READ, area="auth")
def export_records(call: PageRequest, query: Exported) -> Response:
    """The records that the page is about, as a file: the newest of them, if there are very many."""
    found = call.read(lambda session: _found(session, call, query, limit=MOST_EXPORTED))
    rows = [_plain(one) for one in found]
    if query.format == "json":
        text, type_ = "".join(f"{json.dumps(row)}\n" for row in rows), "application/x-ndjson"
    else:
        text, type_ = _as_csv(rows), "text/csv"
    name = f"audit.{'ndjson' if query.format == 'json' else 'csv'}"
    return Response(text, mimetype=type_, headers={"Content-Disposition": f"attachment; filename={name}"})


def _found(session: Session, call: PageRequest, asked: Asked, *, limit: int) -> list[AuditRecord]:
    rows = _matching(asked).where(permitted_platform_wide(call.actor.access))
    newest = rows.order_by(AuditRecord.at.desc(), AuditRecord.id.desc()).limit(limit)
    return list(session.scalars(newest, call.actor.parameters))


def _matching(asked: Asked) -> Select[AuditRecord]:
    rows = select(AuditRecord)
    for column, value in (
        (AuditRecord.event, asked.event),
        (AuditRecord.actor, asked.actor),
        (AuditRecord.workspace_name, asked.workspace),
        (AuditRecord.subject, asked.subject),
    ):
        if value:
            rows = rows.where(column == value)
    if asked.since:
        rows = rows.where(AuditRecord.at >= asked.since)
    if asked.until:
        rows = rows.where(AuditRecord.at < asked.until)
    return rows.where(asked.behind(AuditRecord.at, AuditRecord.id))


def _plain(record: AuditRecord) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in (*_COLUMNS, *_LAST_COLUMNS)}
    return {
        name: value.isoformat()
        if isinstance(value, datetime)
        else str(value)
        if isinstance(value, UUID)
        else value
        for name, value in values.items()
    }


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow((*_COLUMNS, *_LAST_COLUMNS))
    for row in rows:
        writer.writerow(
            [_cell(json.dumps(value) if isinstance(value, dict) else value) for value in row.values()]
        )
    return text.getvalue()


def _cell(value: Any) -> str:
    """A value that no spreadsheet takes for a formula: names are what somebody has chosen."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
