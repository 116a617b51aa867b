"""The feed: the events of all deletions, in an order in which none ever comes before one that was read.

Ids of events are given before their transactions are committed, so that one with a smaller id may come to sight later.
So events are in the order of their transactions, and are shown only when every earlier transaction has ended.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import (
    CTE,
    BigInteger,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from app.access.authorize import Actor, is_platform_admin, require_authentic
from app.cleanup.requests import may_follow
from app.db import Sessions, session_scope
from app.errors import BadRequest
from app.models import Deletion, DeletionEvent
from app.models.columns import TransactionId

LOOKED_THROUGH = 10_000
"""The most events that are looked at for one page: a caller may see few of them, or none."""

_PLACED_AT_ONCE = 10_000

_CURSOR = re.compile(r"(\d{1,19})\.(\d{1,19})", re.ASCII)
_ALL_ENDED_BEFORE = func.pg_snapshot_xmin(func.pg_current_snapshot(), type_=TransactionId)
"""Transactions below have ended, and are seen by this very statement if they were committed."""
_NOT_BEGUN = func.pg_snapshot_xmax(func.pg_current_snapshot(), type_=TransactionId)
"""The first transaction of this server that may still have no number."""


@dataclass(frozen=True)
class Cursor:
    """A place in the feed: behind the event with that id, of that transaction."""

    transaction_id: int = 0
    event_id: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """The cursor of an earlier answer. Raises BadRequest."""
        found = _CURSOR.fullmatch(text)
        numbers = [int(one) for one in found.groups()] if found else []
        if not numbers or max(numbers) >= 2**63:
            raise BadRequest(f"after={text[:50]!r} is no cursor of this feed. {_REMEDY}")
        return cls(*numbers)

    def __str__(self) -> str:
        return f"{self.transaction_id}.{self.event_id}"


_REMEDY = "Pass `after` of an earlier answer as it is, or none to begin at the oldest event."


@dataclass(frozen=True)
class FeedPage:
    """Some events with their deletions' workspaces, and where the next page begins."""

    events: Sequence[Any]
    """Rows with the columns of `_EVENT` and `_WORKSPACE`."""
    after: Cursor


def read_feed(session: Session, actor: Actor, after: Cursor, *, limit: int) -> FeedPage:
    """The next events, `limit` at most, of the deletions that the actor may follow.

    There may be fewer, or none, before the end, because no more than `LOOKED_THROUGH` are looked at: it is the end
    when the cursor stays as it is. Raises BadRequest for a cursor of another database, and as `require_authentic` does.
    """
    given = {"after_transaction": str(after.transaction_id), "after_event": after.event_id}
    found = session.execute(_page(actor, limit), {**actor.parameters, **given}).all()
    events = [row for row in found if row.id is not None]
    if not events:
        require_authentic(session, actor)
    if not found:
        _require_ours(session, after)
    if len(events) == limit:
        after = Cursor(int(events[-1].transaction_id), events[-1].id)
    elif found:
        after = Cursor(int(found[-1].last_transaction), found[-1].last_event)
    return FeedPage(events, after)


def place_restored_events(sessions: Sessions) -> int:
    """Put the events that were restored from the backup of another server at the beginning of the feed; their number.

    That server's transactions have numbers that this one has not given yet, and their events would be shown when it
    has. Commits after each of several steps.
    """
    event, placed = DeletionEvent, 0
    some = select(event.id).where(event.transaction_id >= _NOT_BEGUN).limit(_PLACED_AT_ONCE)
    change = update(event).where(event.id.in_(some)).values(transaction_id=cast("0", TransactionId))
    while True:
        with session_scope(sessions) as session:
            number = session.connection().execute(change).rowcount
        placed += number
        if number < _PLACED_AT_ONCE:
            return placed


def _require_ours(session: Session, after: Cursor) -> None:
    """Raise BadRequest for a cursor that no page of this database can have had."""
    ended = cast(str(after.transaction_id), TransactionId) < _ALL_ENDED_BEFORE
    if not session.scalar(select(ended)):
        raise BadRequest(
            f"after={str(after)!r} is from another database, or from before a backup of it was restored. {_REMEDY}"
        )


_EVENT = (
    DeletionEvent.deletion_id,
    DeletionEvent.at,
    DeletionEvent.actor,
    DeletionEvent.event,
    DeletionEvent.detail,
)
_WORKSPACE = (Deletion.workspace_id, Deletion.workspace_name)


def _page(actor: Actor, limit: int) -> Select[*tuple[Any, ...]]:
    """The events of the page in their order, each beside the last one that was looked at; that alone if there are none.

    One statement, because the next one would see more, and pass over it.
    """
    looked_at = _looked_at(actor, limit)
    order = (looked_at.c.transaction_id, looked_at.c.id)
    # OFFSET keeps PostgreSQL from joining whole tables: it cannot estimate how few rows these are.
    none = literal_column("0", Integer)
    of = select(*_WORKSPACE).where(Deletion.id == looked_at.c.deletion_id, may_follow(actor))
    whose = of.offset(none).correlate(looked_at).lateral("whose")
    seen = select(*order, *whose.c).select_from(looked_at).join(whose, true()).order_by(*order).limit(limit)
    found = seen.subquery("found")
    details = (
        select(*_EVENT).where(DeletionEvent.id == found.c.id).offset(none).correlate(found).lateral("event")
    )
    last = select(*order).order_by(*(column.desc() for column in order)).limit(1).subquery("last")
    return (
        select(
            cast(last.c.transaction_id, Text).label("last_transaction"),
            last.c.id.label("last_event"),
            found.c.id,
            cast(found.c.transaction_id, Text).label("transaction_id"),
            *(found.c[column.name] for column in _WORKSPACE),
            *details.c,
        )
        .select_from(last)
        .outerjoin(found, true())
        .outerjoin(details, true())
        .order_by(found.c.transaction_id, found.c.id)
    )


def _looked_at(actor: Actor, limit: int) -> CTE:
    """The events behind the cursor among which the page is: the page itself for who sees all of them."""
    event = DeletionEvent
    after = tuple_(
        cast(bindparam("after_transaction", type_=Text), TransactionId),
        bindparam("after_event", type_=BigInteger),
    )
    most = case((is_platform_admin(actor.access), limit), else_=LOOKED_THROUGH)
    return (
        select(event.transaction_id, event.id, event.deletion_id)
        .where(tuple_(event.transaction_id, event.id) > after, event.transaction_id < _ALL_ENDED_BEFORE)
        .order_by(event.transaction_id, event.id)
        .limit(most)
        .cte("looked_at")
    )
