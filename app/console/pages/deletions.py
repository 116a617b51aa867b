"""The list of deletions, by state and workspace."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from flask import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.permissions import Permission
from app.cleanup import requests
from app.clock import database_now
from app.console.page import Before, PageRequest, Pages
from app.http.field_types import ShortText
from app.lifecycle import DELETION_UNFINISHED, DeletionState
from app.models import Deletion
from app.models.deletion import Counts

pages = Pages()
SHOWN = 40
_COLUMNS = (
    Deletion.id,
    Deletion.workspace_name,
    Deletion.state,
    Deletion.requested_at,
    Deletion.requested_by,
    Deletion.phase,
    Deletion.reason,
    Deletion.started_at,
    Deletion.created_counts.label("created"),
    Deletion.deleted_counts.label("deleted"),
)
"""What a line says, and no more: a report of each would cost a page ten times as much."""


@dataclass(frozen=True)
class Listed:
    """A deletion in one line."""

    id: UUID
    workspace_name: str
    state: DeletionState
    requested_at: datetime
    requested_by: str
    phase: str | None
    reason: str | None
    started_at: datetime | None
    created: Counts
    deleted: Counts

    @property
    def left(self) -> int | None:
        """How many resources are left, by what there was and what went; None before that was counted."""
        if self.state not in DELETION_UNFINISHED:
            return 0
        if self.started_at is None:
            return None
        return sum(max(number - self.deleted.get(kind, 0), 0) for kind, number in self.created.items())


class Asked(Before):
    """Which deletions, and behind which one the page begins."""

    state: DeletionState | None = None
    workspace: ShortText | None = None


@pages.add("GET", "/deletions", permission=Permission.DELETIONS_READ)
def list_deletions(call: PageRequest, query: Asked) -> Response:
    """The deletions that the caller may follow, newest first."""
    found, now = call.read(
        lambda session: (_page(session, call, query), session.scalars(select(database_now())).one())
    )
    return call.page(
        "deletions.html",
        deletions=found[:SHOWN],
        asked=query,
        states=list(DeletionState),
        last=found[SHOWN - 1] if len(found) > SHOWN else None,
        now=now,
    )


def _page(session: Session, call: PageRequest, asked: Asked) -> list[Listed]:
    """One more than is shown, if there is one."""
    rows = select(*_COLUMNS).where(requests.may_follow(call.actor))
    if asked.state:
        rows = rows.where(Deletion.state == asked.state)
    if asked.workspace:
        rows = rows.where(Deletion.workspace_name == asked.workspace)
    rows = rows.where(asked.behind(Deletion.requested_at, Deletion.id))
    rows = rows.order_by(Deletion.requested_at.desc(), Deletion.id.desc()).limit(SHOWN + 1)
    return [Listed(**row._mapping) for row in session.execute(rows, call.actor.parameters)]
