"""Pages of a log; they are stable while it grows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.models import JobLog

MAX_PAGE_BYTES = 1024 * 1024
"""Bytes of text in one page; in JSON a control character becomes six."""

MOST_COUNTED = 100_000
"""Lines that are counted for an answer: whoever follows a log asks every second."""

Side = Literal["after", "before"]
Lines = Select[JobLog]


class InvalidCursor(Exception):
    """A cursor that no page has given."""


@dataclass(frozen=True)
class LinePage:
    """Some lines of a log, oldest first."""

    lines: Sequence[JobLog]
    total: int
    """How many there are in all, counted no further than `MOST_COUNTED`."""
    next_page: str | None
    prev_page: str | None


def page_of(session: Session, lines: Lines, *, limit: int, cursor: str | None, tail: int | None) -> LinePage:
    """The page that a cursor leads to, or the first one, or the newest `tail` lines, without a page behind them.

    Raises InvalidCursor.
    """
    side, line_id = _read_cursor(cursor)
    if tail is None:
        found = _page(session, lines, side, line_id, limit)
    else:
        found = _first(session, lines.order_by(JobLog.id.desc()), tail)[::-1]
    first, last = (found[0].id, found[-1].id) if found else (line_id, line_id)
    return LinePage(
        lines=found,
        total=_count(session, lines),
        next_page=None if tail else _cursor(session, lines, "after", last),
        prev_page=_cursor(session, lines, "before", first),
    )


def _page(session: Session, lines: Lines, side: Side, line_id: UUID | None, limit: int) -> list[JobLog]:
    if side == "before":
        earlier = lines.where(JobLog.id < line_id).order_by(JobLog.id.desc())
        return _first(session, earlier, limit)[::-1]
    later = lines if line_id is None else lines.where(JobLog.id > line_id)
    return _first(session, later.order_by(JobLog.id), limit)


def _first(session: Session, lines: Lines, limit: int) -> list[JobLog]:
    """The first lines that fit into a page, at least one if there is any."""
    # Known without reading them; a log only grows behind its last line, so the second query finds the same lines.
    sizes = session.scalars(lines.with_only_columns(func.octet_length(JobLog.message)).limit(limit))
    fitting = sum(total <= MAX_PAGE_BYTES for total in accumulate(sizes))
    return list(session.scalars(lines.limit(max(fitting, 1))))


def _count(session: Session, lines: Lines) -> int:
    counted = lines.with_only_columns(JobLog.id).limit(MOST_COUNTED).subquery()
    return session.scalar(select(func.count()).select_from(counted)) or 0


def _cursor(session: Session, lines: Lines, side: Side, line_id: UUID | None) -> str | None:
    """The cursor of the lines on that side of a line; None if there are none."""
    if line_id is None:
        return None
    beyond = lines.where(JobLog.id > line_id if side == "after" else JobLog.id < line_id)
    exists = session.scalar(select(beyond.exists()))
    return f"{side}.{line_id.hex}" if exists else None


def _read_cursor(cursor: str | None) -> tuple[Side, UUID | None]:
    if cursor is None:
        return "after", None
    side, _, line_id = cursor.partition(".")
    try:
        known: dict[str, Side] = {"after": "after", "before": "before"}
        return known[side], UUID(line_id)
    except (KeyError, ValueError):
        raise InvalidCursor from None
