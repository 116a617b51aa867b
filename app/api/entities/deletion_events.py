"""The feed of deletions over HTTP."""

from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from app.access.permissions import Permission
from app.cleanup.report.feed import Cursor, read_feed
from app.clock import Timestamp
from app.errors import BadRequest
from app.http.field_types import Resource
from app.http.route import Query, RequestContext, Routes

routes = Routes("deletions")


class FeedEvent(Resource):
    """One line of a deletion's history, with the deletion's workspace."""

    id: int
    deletion_id: UUID
    workspace_id: UUID
    workspace_name: str
    at: Timestamp
    actor: str
    event: str
    detail: dict[str, Any]


class EventFeed(BaseModel):
    """Events in the order of the feed. Go on with `after`; it is the end when that is the one that you gave."""

    data: list[FeedEvent]
    after: str


class FeedQuery(Query):
    """Where to go on, and how far."""

    after: str | None = Field(
        None, description="`after` of an earlier answer. Without it, the feed begins at the oldest event."
    )
    limit: int = Field(100, ge=1, le=1000, description="The most events of the answer.")


@routes.add(
    "GET",
    "/apis/entities/v2/deletion-events",
    permission=Permission.DELETIONS_READ,
    returns=EventFeed,
    raises=(BadRequest,),
)
def list_events_of_deletions(call: RequestContext, query: FeedQuery) -> EventFeed:
    """List the events of the deletions that you requested, oldest first; platform administrators see those of all.

    A feed: no event ever comes before one that was answered. It is shown once all transactions that began before it
    have ended. An answer may have fewer events than `limit`, or none, before the end.
    """
    after = Cursor() if query.after is None else Cursor.parse(query.after)
    page = read_feed(call.session, call.actor, after, limit=query.limit)
    return EventFeed(data=[FeedEvent.model_validate(row) for row in page.events], after=str(page.after))
