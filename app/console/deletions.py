"""The list of deletions, by state and workspace."""

from uuid import UUID

from flask import Response
from pydantic import AwareDatetime
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from app.access.permissions import Permission
from app.cleanup import requests
from app.cleanup.report import DeletionReport, report
from app.clock import database_now
from app.console.pages import Fields, PageRequest, Pages
from app.http.field_types import ShortText
from app.lifecycle import DeletionState
from app.models import Deletion

pages = Pages()
SHOWN = 50


class Asked(Fields):
    """Which deletions, and behind which one the page begins."""

    state: DeletionState | None = None
    workspace: ShortText | None = None
    before: AwareDatetime | None = None
    before_id: UUID | None = None


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


def _page(session: Session, call: PageRequest, asked: Asked) -> list[DeletionReport]:
    """One more than is shown, if there is one."""
    rows = select(Deletion).where(requests.may_follow(call.actor))
    if asked.state:
        rows = rows.where(Deletion.state == asked.state)
    if asked.workspace:
        rows = rows.where(Deletion.workspace_name == asked.workspace)
    if asked.before and asked.before_id:
        place = tuple_(Deletion.requested_at, Deletion.id)
        rows = rows.where(place < tuple_(asked.before, asked.before_id))
    rows = rows.order_by(Deletion.requested_at.desc(), Deletion.id.desc()).limit(SHOWN + 1)
    return report(session, list(session.scalars(rows, call.actor.parameters)), most_failures=1)
