"""Appending to the audit log. No code here changes or removes a record; functions of the database end old ones."""

from typing import Any
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, FromClause, bindparam, insert, inspect, literal, select
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.access.authorize import Actor
from app.models import AuditRecord
from app.models.audit import AuditEvent

_GIVEN = ("id", "actor", "email", "service", "address", "request_id", "subject", "detail")
"""The columns of a record that are parameters of a statement with `recorded`."""


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
    values = _values(actor, event, subject, detail)
    session.add(AuditRecord(workspace_id=workspace_id, workspace_name=name, **values))


def recorded(done: FromClause, event: AuditEvent) -> CTE:
    """The part of a statement that appends one record of what another part has `done` to a workspace.

    The columns of `done` are those of the workspace; without a row of it there is no record. The statement is
    executed with `parameters`.
    """
    columns = inspect(AuditRecord).columns
    values: dict[str, ColumnElement[Any]] = {
        name: bindparam(_parameter(event, name), type_=columns[name].type) for name in _GIVEN
    }
    values |= {"event": literal(event), "workspace_id": done.c.id, "workspace_name": done.c.name}
    return insert(AuditRecord).from_select(list(values), select(*values.values())).cte()


def parameters(
    actor: Actor, event: AuditEvent, *, subject: str | None = None, **detail: Any
) -> dict[str, Any]:
    """Those of `recorded`."""
    values = _values(actor, event, subject, detail) | {"id": uuid7()}
    return {_parameter(event, name): values[name] for name in _GIVEN}


def _parameter(event: AuditEvent, name: str) -> str:
    return f"{event}_{name}".replace(".", "_")


def _values(
    actor: Actor | str, event: AuditEvent, subject: str | None, detail: dict[str, Any]
) -> dict[str, Any]:
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
    known = {key: value for key, value in detail.items() if value is not None}
    return {"event": event, "subject": subject, "detail": known, **origin}
