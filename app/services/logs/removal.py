"""Removal of lines of logs, part by part: there may be any number of them."""

import time

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from app.context import Context
from app.db import session_scope
from app.models import JobLog

_AT_ONCE_LOCKED = 1000
"""Lines that are removed while locks are held: usually only those that have come since the others went."""


def remove_lines(context: Context, *which: ColumnElement[bool], within_s: float) -> bool:
    """Remove the lines that meet the conditions, for about so long; whether all are gone. Commits each chunk."""
    deadline, at_most = time.monotonic() + within_s, context.settings.chunk_size
    while True:
        with session_scope(context.sessions) as session:
            if _remove(session, *which, at_most=at_most) < at_most:
                return True
        if time.monotonic() >= deadline:
            return False


def remove_last_lines(session: Session, *which: ColumnElement[bool]) -> bool:
    """The same under the lock that keeps new lines out, which must not last: one chunk. Does not commit."""
    return _remove(session, *which, at_most=_AT_ONCE_LOCKED) < _AT_ONCE_LOCKED


def _remove(session: Session, *which: ColumnElement[bool], at_most: int) -> int:
    page = select(JobLog.id).where(*which).limit(at_most)
    removed = session.execute(
        delete(JobLog).where(JobLog.id.in_(page)).returning(JobLog.id),
        execution_options={"synchronize_session": False},
    )
    return len(removed.all())
